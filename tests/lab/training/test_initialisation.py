"""Rates of decay are set so that what is measured is what was asked for."""

from functools import partial

import pytest
import torch
from oracles.draws import language_model

import statesize as ss
from statesize.errors import ModelError
from statesize.lab.studies.engine.grid import INTERVENTIONS
from statesize.lab.training.initialisation import initialise

built = partial(language_model, vocabulary_size=64, width=16, heads=2, layers=2, key_size=16, mlp_factor=1)


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
    for model, start, target, sign in (
        (slow, partial(initialise, target=0.4), 0.4, 1),
        (fast, INTERVENTIONS["measured_start"], 0.9, -1),
    ):
        before, shares = rates_of(model), measured(model)
        assert all((share - target) * sign > 0.1 for share in shares.values())
        start(model)
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
    with pytest.raises(ModelError):
        initialise(built("la"), 0.8)
