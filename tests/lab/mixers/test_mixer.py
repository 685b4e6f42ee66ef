"""Every mixer: training form = step form = operator, causality, gradients, what is saved comes back."""

from functools import partial

import pytest
import torch
from oracles.draws import language_model

import experiments.rank.mixers  # noqa: F401
import experiments.variation.mixers  # noqa: F401
from campaigns.layers.campaign import largest_share
from statesize import capture
from statesize.lab.mixers import HeadMixer, load_checkpoint, mixer, save_checkpoint
from statesize.lab.mixers.base import SteppedMixer

MIXERS = mixer.names()
STEPPED = [name for name in MIXERS if issubclass(mixer[name], SteppedMixer)]
HEADS = {name for name in MIXERS if issubclass(mixer[name], HeadMixer)}
LENGTHS = (1, *(pytest.param(length, marks=pytest.mark.slow) for length in (2, 5, 33)), 71)
every_mixer = pytest.mark.parametrize("name", MIXERS)
every_stepped_mixer = pytest.mark.parametrize("name", STEPPED)


model_of = partial(language_model, seed=3, vocabulary_size=16, width=24, heads=3, key_size=6, layers=1, decay_bias=-2.0)


def layer_of(name, dtype=torch.float64, **changes):
    return model_of(name, **changes).to(dtype).blocks[0].mixer


def hidden_of(length, dtype=torch.float64):
    return torch.randn(2, length, 24, generator=torch.Generator().manual_seed(length), dtype=torch.float64).to(dtype)


def tokens(length):
    return torch.randint(0, 16, (1, length), generator=torch.Generator().manual_seed(0))


@every_mixer
@pytest.mark.parametrize("length", LENGTHS)
def test_training_form_step_form_and_operator_are_one_map(name, length):
    layer, hidden = layer_of(name), hidden_of(length)
    operator = layer.operator(hidden)
    assert (operator.batch_shape, operator.length) == ((2, 3 if name in HEADS else 24), length)
    assert operator.dtype == torch.float64
    mixed = operator.dense() @ layer.values(hidden)
    torch.testing.assert_close(mixed, layer.mixed_values(hidden), rtol=1e-10, atol=1e-10)
    if name in STEPPED:
        cache, outputs = layer.initial_cache(2), []
        for t in range(length):
            output, cache = layer.step(hidden[:, t], cache)
            outputs.append(output)
        torch.testing.assert_close(torch.stack(outputs, 1), layer(hidden), rtol=1e-10, atol=1e-10)


@every_mixer
def test_what_is_saved_comes_back(name, tmp_path):
    model = model_of(name)
    save_checkpoint(model, tmp_path / "a" / "b")
    loaded = load_checkpoint(tmp_path / "a" / "b")
    assert (loaded.config, loaded.training) == (model.config, False)
    assert torch.equal(loaded(tokens(9)), model(tokens(9)))


@every_stepped_mixer
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_state_bytes_are_those_of_the_layer_s_own_cache(name, dtype):
    model = model_of(name).to(dtype)
    caches = model.initial_caches(1)
    with torch.no_grad():
        for token in tokens(37)[0]:
            _, caches = model.step(token[None], caches)
    assert [item.state_bytes for item in capture(model, tokens(37))] == [sum(part.nbytes for part in caches[1])]


@every_mixer
def test_no_ess_exceeds_its_ceiling(name):
    for item in capture(model_of(name, width=12, key_size=4), tokens(24)):
        parts = [item] if item.by_group() is None else [item, item.by_group()]
        assert all(largest_share(part) <= 1 for part in parts)


@every_stepped_mixer
def test_a_step_does_not_change_the_cache_that_it_is_given(name):
    layer, hidden = layer_of(name), hidden_of(3)
    _, cache = layer.step(hidden[:, 0], layer.initial_cache(2))
    first, again = (layer.step(hidden[:, 1], cache)[0] for _ in range(2))
    assert torch.equal(first, again)


@every_mixer
def test_no_output_depends_on_a_later_input(name):
    layer, hidden = layer_of(name), hidden_of(40)
    changed = hidden.clone()
    changed[:, 25:] += 1
    before, after = layer(hidden), layer(changed)
    torch.testing.assert_close(before[:, :25], after[:, :25], rtol=0, atol=1e-13)
    assert not torch.allclose(before[:, 25], after[:, 25])


@every_mixer
def test_gradients_reach_every_parameter_and_equal_those_through_the_operator(name):
    layer, hidden = layer_of(name), hidden_of(40)
    mixed = layer.mixed_values(hidden)
    weights = torch.randn(mixed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    after = ("norm_weight", "gate_projection.weight", "output_projection.weight")
    parameters = {key: p for key, p in layer.named_parameters() if key not in after}
    through = layer.operator(hidden).dense() @ layer.values(hidden)
    given, expected = (
        torch.autograd.grad((outputs * weights).sum(), list(parameters.values())) for outputs in (mixed, through)
    )
    for key, one, other in zip(parameters, given, expected, strict=True):
        assert one.abs().max() > 0, key
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=key)


@every_mixer
def test_float32_is_close_to_float64(name):
    single, exact = (layer_of(name, dtype)(hidden_of(100, dtype)) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "bound"), [("wla", -4), ("gla", -4), ("gla-s6", -16)])
def test_decays_beyond_the_bound_are_the_same_in_training_form_and_operator(name, bound):
    """Logits far below −64, or steps of 10 with 64 states: both forms agree on the bound, and gradients are finite."""
    steps = {"key_size": 64, "smallest_step": 0.01, "largest_step": 10} if name == "gla-s6" else {}
    layer, hidden = layer_of(name, torch.float32, **steps), hidden_of(70, torch.float32)
    if name != "gla-s6":
        with torch.no_grad():
            (layer.decay_bias if name == "wla" else layer.decay.bias)[::2] = -500.0
    assert layer.log_decay(hidden).min() == bound
    mixed = layer.mixed_values(hidden)
    torch.testing.assert_close(layer.operator(hidden).dense() @ layer.values(hidden), mixed, rtol=1e-3, atol=1e-4)
    gradients = torch.autograd.grad(mixed.square().sum(), list(layer.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["wla", "gla"])
def test_decay_bias_sets_the_initial_decay(name):
    layer, hidden = layer_of(name), hidden_of(2)
    if name == "gla":
        torch.nn.init.zeros_(layer.decay.weight)
    expected = torch.nn.functional.logsigmoid(torch.tensor(-2.0, dtype=torch.float64)) / 16
    torch.testing.assert_close(layer.log_decay(hidden), expected.expand_as(layer.log_decay(hidden)))
