"""Rates of decay are set so that what is measured is what was asked for."""

import dataclasses

import pytest
import torch

import statesize as ss
from statesize.errors import ModelError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.training.initialisation import initialise

SHAPE = ModelConfig("s6", 64, width=16, heads=2, layers=2, key_size=16, mlp_factor=1)


def built(mixer, **changes):
    config = dataclasses.replace(SHAPE, mixer=mixer, **changes)
    return LanguageModel(config, torch.Generator().manual_seed(0))


def measured(model):
    """Mean utilisation by mixer, at every position and of every unit, with the engine that is the definition."""
    found = {}
    for captured in ss.capture(model, torch.randint(64, (2, 48), generator=torch.Generator().manual_seed(0))):
        measurement = ss.measure(captured.operator, (), (1e-2,), ("counts",), engine="dense")
        share = measurement.relative_count[..., 0] / measurement.ceiling
        found[captured.name] = float(share.nanmean())
    return found


def rates_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if name.endswith("log_rate")}


@pytest.mark.parametrize("mixer", ["s6", pytest.param("gla-s6", marks=pytest.mark.slow)])
def test_each_mixer_ends_where_it_was_asked_to_with_one_offset_for_all_rates(mixer):
    """Those that remember too much, and those that forget too much."""
    slow = built(mixer, width=8, positions=48)
    fast = built(mixer, layers=1, smallest_step=0.1, largest_step=1.0, positions=48)
    for model, target, sign in ((slow, 0.4, 1), (fast, 0.7, -1)):
        before, shares = rates_of(model), measured(model)
        assert all((share - target) * sign > 0.1 for share in shares.values())
        initialise(model, target)
        assert list(measured(model).values()) == pytest.approx([target] * len(shares), abs=0.01)
        for name, rates in rates_of(model).items():
            offset = rates - before[name]
            assert float(offset.max()) * sign > 0
            torch.testing.assert_close(offset, offset.flatten()[0].expand_as(offset))


def test_mixers_without_rates_are_left():
    model = built("s6,sa", positions=20)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialise(model, 0.3)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"layers.0.mixer.log_rate"}
    with pytest.raises(ModelError, match="none of the mixers of la has a parameter log_rate"):
        initialise(built("la"), 0.8)
