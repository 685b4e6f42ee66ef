"""Decays are set so that what is measured is what was asked for, in the package's mixers and in transformers' own."""

import dataclasses

import pytest
import torch
from oracles.recurrent_models import tiny_model
from torch import nn

import statesize as ss
from statesize.errors import InputError, ModelError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.training import initialise
from statesize.lab.training.initialisation import _random_tokens

SHAPE = ModelConfig("gla", 64, width=16, heads=2, layers=2, key_size=16, mlp_factor=1)


def built(mixer, **changes):
    config = dataclasses.replace(SHAPE, mixer=mixer, **changes)
    return LanguageModel(config, torch.Generator().manual_seed(0))


def tokens(length=48, seed=7):
    return torch.randint(1, 64, (2, length), generator=torch.Generator().manual_seed(seed))


def measured(model, ids):
    """Mean utilisation by mixer, at every position and of every unit, with the engine that is the definition."""
    found = {}
    for captured in ss.capture(model, ids):
        measurement = ss.measure(captured.operator, (), (1e-2,), ("counts",), engine="dense")
        share = measurement.relative_count[..., 0] / measurement.ceiling
        found[captured.name] = float(share.nanmean())
    return found


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("mixer", "target"),
    [
        ("s6", 0.4),
        ("s4d", 0.3),
        pytest.param("gla", 0.6, marks=pytest.mark.slow),
    ],
)
def test_each_mixer_of_the_package_ends_where_it_was_asked_to(mixer, target):
    model, ids = built(mixer, width=8), tokens()
    result = initialise(model, target, ids)
    assert result.reached, str(result)
    assert [found.name for found in result.mixers] == ["layers.0.mixer", "layers.1.mixer"]
    after = measured(model, ids)
    for found in result.mixers:
        assert found.after == pytest.approx(target, abs=0.01)
        assert after[found.name] == pytest.approx(found.after, abs=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize("mixer", ["s6", "gla-s6", "gla", "wla"])
def test_a_mixer_that_forgets_too_much_is_made_to_forget_less(mixer):
    model, ids = built(mixer, layers=1, decay_bias=-8.0, smallest_step=0.1, largest_step=1.0), tokens()
    before = measured(model, ids)
    result = initialise(model, 0.7, ids)
    assert result.reached, str(result)
    for found in result.mixers:
        assert found.before == pytest.approx(before[found.name], abs=0.005)
        assert found.before < 0.6
        assert (found.offset > 0) == ("bias" in found.parameter)
        assert found.after == pytest.approx(0.7, abs=0.01)
        assert measured(model, ids)[found.name] == pytest.approx(0.7, abs=0.01)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "family", ["mamba", "xlstm", *(pytest.param(one, marks=pytest.mark.slow) for one in ("mamba2", "qwen3_next"))]
)
def test_models_of_transformers(family):
    model, ids = tiny_model(family), tokens(33)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = initialise(model, 0.5, ids)
    assert result.reached, str(result)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {found.parameter for found in result.mixers}
    after = measured(model, ids)
    for found in result.mixers:
        assert found.parameter.endswith("fgate_preact.bias" if family == "xlstm" else "A_log")
        torch.testing.assert_close(
            model.get_parameter(found.parameter), before[found.parameter] + found.offset, msg=found.name
        )
        assert after[found.name] == pytest.approx(found.after, abs=0.03)


def test_the_told_utilisation_is_that_of_all_positions():
    # The state of this layer is not used alike at all of them.
    model = built("gated-deltanet", key_size=8)
    result = initialise(model, 0.9)
    after = measured(model, _random_tokens(model))
    for found in result.mixers:
        assert found.after == pytest.approx(after[found.name], abs=1e-6)


def test_mixers_without_a_decay_are_named_and_left():
    model = built("gla,sa", decay_bias=-8.0)
    result = initialise(model, 0.8)
    assert [found.name for found in result.mixers] == ["layers.0.mixer"]
    assert result.skipped.keys() == {"layers.1.mixer"}
    assert "layers.1.mixer: left as it is, it has no parameter" in str(result)
    with pytest.raises(ModelError, match=r"LanguageModel: none of its mixers \(layers.0.mixer, layers.1.mixer\)"):
        initialise(built("la"), 0.8)


def test_a_target_that_is_already_met_changes_nothing():
    model, ids = built("gla", decay_bias=-2.0), tokens()
    first = initialise(model, 0.6, ids)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = initialise(model, 0.6, ids)
    assert [found.offset for found in again.mixers] == [0.0, 0.0]
    assert [found.before for found in again.mixers] == [found.after for found in first.mixers]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_target_out_of_reach_is_said_and_the_nearest_is_left():
    # Convolutions of 8 real modes of nearly equal decays have low rank, however slow they are.
    model = built("s4d", layers=1)
    with torch.no_grad():
        model.get_parameter("layers.0.mixer.frequency").zero_()
    ids = tokens()
    result = initialise(model, 1.0, ids)
    (found,) = result.mixers
    assert not result.reached
    assert "1 is out of reach; measured values lie between" in str(result)
    assert found.before <= found.after < 0.9
    assert measured(model, ids)["layers.0.mixer"] == pytest.approx(found.after, abs=1e-6)


def test_the_state_of_the_model_and_of_torch_is_left_as_it_was():
    model = built("s6").train()
    model.norm.eval()
    state = torch.random.get_rng_state()
    initialise(model, 0.3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert not model.norm.training
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_what_raises_leaves_the_weights_as_they_were():
    model, ids = built("gla", decay_bias=-8.0), tokens()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = iter(range(5))

    def stop(*_):
        if next(calls, None) is None:
            raise KeyboardInterrupt

    model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        initialise(model, 0.8, ids)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


class Leaky(nn.Module):
    """A mixer of one's own, known by the name of its parameter."""

    def __init__(self):
        super().__init__()
        self.log_rate = nn.Parameter(torch.zeros(4, 6) + torch.linspace(-1, 1, 6))
        self.projection = nn.Linear(4, 12)

    def operator(self, hidden):
        key, query = self.projection(hidden)[:, None].chunk(2, -1)
        decay = (-self.log_rate.exp()).exp()[:, None]
        return ss.Recurrence(decay.expand(hidden.shape[0], -1, hidden.shape[1], -1), key, query)

    def forward(self, hidden):
        return self.operator(hidden).apply(hidden.mT.unsqueeze(-1)).squeeze(-1).mT


def test_a_mixer_of_ones_own_and_a_model_that_is_a_mixer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 4), Leaky())
    assert initialise(model, 0.7, tokens()).mixers[0].parameter == "1.log_rate"
    alone = Leaky()
    result = initialise(alone, 0.7, torch.randn(2, 30, 4))
    assert result.mixers[0].parameter == "log_rate"
    assert result.reached
    with pytest.raises(InputError, match="input_ids must be token ids for a Sequential"):
        initialise(model, 0.7)


@pytest.mark.parametrize("target", [0, -0.1, 1.5, float("nan"), True, "0.5"])
def test_bad_targets(target):
    with pytest.raises(InputError, match=r"target must be a number above 0 and at most 1, got .* utilisation"):
        initialise(built("gla"), target)


def test_bad_inputs():
    with pytest.raises(InputError, match="relative_tolerances"):
        initialise(built("gla"), 0.5, tokens(), relative_tolerance=-1.0)
    with pytest.raises(InputError, match="vocabulary, 0 to 63, got"):
        initialise(built("gla"), 0.5, tokens() + 64)


def test_random_tokens_fit_the_model():
    assert initialise(built("gla", positions=20), 0.8).reached


@pytest.mark.parametrize("pad", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_random_tokens_are_no_padding(pad):
    model = tiny_model("mamba")
    # A third of all tokens would be padding, among them two at a border.
    model.config.pad_token_id, model.config.vocab_size = pad, 3
    initialise(model, 0.9)


def test_a_utilisation_that_jumps_over_the_target_ends_beside_it():
    # One unit at seven positions uses whole parts of its state.
    model = built("gla", width=4, heads=1, key_size=2, layers=1, decay_bias=-8.0)
    ids = tokens(length=8)[:1]
    result = initialise(model, 0.9, ids)
    (found,) = result.mixers
    assert not result.reached
    assert found.message.startswith("0.9 is out of reach; measured values lie between")
    low, high = (float(word) for word in found.message.partition("between ")[2].split(" and "))
    assert low < 0.9 < high
    assert found.after == pytest.approx(measured(model, ids)["layers.0.mixer"])
