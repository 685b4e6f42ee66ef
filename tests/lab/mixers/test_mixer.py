"""Every mixer: training form = step form = operator, causality, gradients."""

import pytest
import torch

import experiments.rank.mixers  # noqa: F401
import experiments.variation.mixers  # noqa: F401
from campaigns.layers.campaign import largest_share
from statesize import capture
from statesize.lab.mixers import HeadMixer, LanguageModel, ModelConfig, mixer
from statesize.lab.mixers.base import SteppedMixer

MIXERS = mixer.names()
STEPPED = [name for name in MIXERS if issubclass(mixer[name], SteppedMixer)]
HEADS = {name for name in MIXERS if issubclass(mixer[name], HeadMixer)}
LENGTHS = (1, *(pytest.param(length, marks=pytest.mark.slow) for length in (2, 5, 33)), 71)


def mixer_of(name, dtype=torch.float64, **changes):
    config = ModelConfig(mixer=name, width=24, heads=3, **{"key_size": 6, "layers": 1, "decay_bias": -2.0, **changes})
    return LanguageModel(config, torch.Generator().manual_seed(3)).to(dtype).blocks[0].mixer


def hidden_of(length, dtype=torch.float64, width=24):
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(length), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_training_form_step_form_and_operator_are_one_map(name, length):
    layer, hidden = mixer_of(name), hidden_of(length)
    operator = layer.operator(hidden)
    assert operator.batch_shape == (2, 3 if name in HEADS else 24)
    assert operator.length == length
    assert operator.dtype == torch.float64
    torch.testing.assert_close(
        operator.dense() @ layer.values(hidden), layer.mixed_values(hidden), rtol=1e-10, atol=1e-10
    )
    if name in STEPPED:
        cache, outputs = layer.initial_cache(2), []
        for t in range(length):
            output, cache = layer.step(hidden[:, t], cache)
            outputs.append(output)
        torch.testing.assert_close(torch.stack(outputs, 1), layer(hidden), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STEPPED)
def test_state_bytes_are_those_of_the_layer_s_own_cache(name, dtype):
    model = LanguageModel(ModelConfig(mixer=name, vocabulary_size=8, width=24, heads=3, key_size=6, layers=1))
    model = model.to(dtype).eval()
    tokens = torch.randint(0, 8, (1, 37), generator=torch.Generator().manual_seed(0))
    caches = model.initial_caches(1)
    with torch.no_grad():
        for token in tokens[0]:
            _, caches = model.step(token[None], caches)
    assert [item.state_bytes for item in capture(model, tokens)] == [sum(part.nbytes for part in caches[1])]


@pytest.mark.parametrize("name", MIXERS)
def test_no_ess_exceeds_its_ceiling(name):
    model = LanguageModel(ModelConfig(mixer=name, vocabulary_size=16, width=12, heads=3, key_size=4, layers=1))
    tokens = torch.randint(0, 16, (1, 24), generator=torch.Generator().manual_seed(0))
    for item in capture(model, tokens):
        parts = [item] if item.by_group() is None else [item, item.by_group()]
        assert all(largest_share(part) <= 1 for part in parts)


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_does_not_change_the_cache_that_it_is_given(name):
    layer, hidden = mixer_of(name), hidden_of(3)
    _, cache = layer.step(hidden[:, 0], layer.initial_cache(2))
    first, _ = layer.step(hidden[:, 1], cache)
    again, _ = layer.step(hidden[:, 1], cache)
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", MIXERS)
def test_no_output_depends_on_a_later_input(name):
    layer, hidden = mixer_of(name), hidden_of(40)
    changed = hidden.clone()
    changed[:, 25:] += 1
    before, after = layer(hidden), layer(changed)
    torch.testing.assert_close(before[:, :25], after[:, :25], rtol=0, atol=1e-13)
    assert not torch.allclose(before[:, 25], after[:, 25])


@pytest.mark.parametrize("name", MIXERS)
def test_gradients_reach_every_parameter_and_equal_those_through_the_operator(name):
    layer, hidden = mixer_of(name), hidden_of(40)
    mixed = layer.mixed_values(hidden)
    weights = torch.randn(mixed.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    after = ("norm_weight", "gate_projection.weight", "output_projection.weight")
    parameters = {key: p for key, p in layer.named_parameters() if key not in after}
    given = torch.autograd.grad((mixed * weights).sum(), list(parameters.values()))
    through = layer.operator(hidden).dense() @ layer.values(hidden)
    expected = torch.autograd.grad((through * weights).sum(), list(parameters.values()))
    for key, one, other in zip(parameters, given, expected, strict=True):
        assert one.abs().max() > 0, key
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", MIXERS)
def test_float32_is_close_to_float64(name):
    exact = mixer_of(name)(hidden_of(100))
    torch.testing.assert_close(mixer_of(name, torch.float32)(hidden_of(100).float()).double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["wla", "gla"])
def test_decays_beyond_the_bound_are_the_same_in_training_form_and_operator(name):
    """Logits far below −64 would give ln a < −4: both forms must agree on the bound, in float32 too."""
    layer, hidden = mixer_of(name, torch.float32), hidden_of(70, torch.float32)
    bias = layer.decay_bias if name == "wla" else layer.decay.bias
    with torch.no_grad():
        bias[::2] = -500.0
    assert layer.log_decay(hidden).min() == -4
    assert layer(hidden).isfinite().all()
    torch.testing.assert_close(
        layer.operator(hidden).dense() @ layer.values(hidden), layer.mixed_values(hidden), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["wla", "gla"])
def test_decay_bias_sets_the_initial_decay(name):
    layer = mixer_of(name)
    if name == "gla":
        torch.nn.init.zeros_(layer.decay.weight)
    expected = torch.nn.functional.logsigmoid(torch.tensor(-2.0, dtype=torch.float64)) / 16
    torch.testing.assert_close(layer.log_decay(hidden_of(2)), expected.expand(*layer.log_decay(hidden_of(2)).shape))
