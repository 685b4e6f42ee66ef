"""S6: the selective state-space model by its equations, and what its normalisation does to the memory at the start."""

import pytest
import torch
from torch.nn import functional

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.mixers import s6 as module
from statesize.lab.mixers.s6 import S6, selective_scan
from statesize.lab.mixers.starts import spread_steps, step_projection
from statesize.operators import Recurrence


def mixer_of(**changes):
    config = ModelConfig(**{"mixer": "s6", "width": 6, "heads": 2, "key_size": 4, "layers": 1, **changes})
    return LanguageModel(config, torch.Generator().manual_seed(0)).double().blocks[0].mixer


def hidden_of(length, width=6):
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


@pytest.mark.parametrize(("normalised", "largest"), [(False, 4), (True, 1)])
def test_rates_start_at_one_to_n_or_at_that_over_n(normalised, largest):
    mixer = mixer_of(normalised=normalised)
    expected = torch.linspace(largest / 4, largest, 4, dtype=torch.float64).expand(6, -1)
    torch.testing.assert_close(mixer.log_rate.exp().detach(), expected, rtol=1e-6, atol=0)
    # A mixer that is built outside of a model starts alike.
    alone = S6(ModelConfig(mixer="s6", width=6, heads=2, key_size=4, normalised=normalised))
    torch.testing.assert_close(alone.log_rate.double(), mixer.log_rate, rtol=1e-6, atol=0)


def test_mixed_values_are_those_of_the_equations():
    mixer, hidden = mixer_of(), hidden_of(9)
    with torch.no_grad():
        mixed, u = mixer.mixed_values(hidden).squeeze(-1), mixer.values(hidden).squeeze(-1)
        steps, B, C = mixer._selected(u.transpose(1, 2))
        for channel in range(6):
            state = torch.zeros(2, 4, dtype=torch.float64)
            for t in range(9):
                step = steps[:, t, channel, None]
                decay = torch.exp(-step * mixer.log_rate[channel].exp())
                state = decay * state + step * B[:, t] * u[:, channel, t, None]
                torch.testing.assert_close(mixed[:, channel, t], (C[:, t] * state).sum(-1))


def inputs(length, dtype=torch.float64, strongest=1.0):
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    steps, rates = normal(2, length, 3).exp() / 5, -strongest * normal(3, 4).exp()
    tensors = (normal(2, length, 3), steps, rates, normal(2, length, 4), normal(2, length, 4))
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def defined(values, steps, rates, B, C):
    """The same map, by stepping through a Recurrence of batch shape (sequence, channel)."""
    steps = steps.transpose(1, 2).unsqueeze(-1)
    operator = Recurrence((steps * rates[:, None]).exp(), steps * B[:, None], C[:, None])
    return operator.apply(values.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)


@pytest.fixture(params=[1, 2 * 12 * 3, module._BLOCK_NUMBERS])
def block_numbers(request, monkeypatch):
    """Blocks of one position, of three, and of all."""
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", request.param)


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_equals_the_recurrence(length):
    tensors = inputs(length)
    torch.testing.assert_close(selective_scan(*tensors), defined(*tensors), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("block_numbers")
@pytest.mark.parametrize("length", [1, 7])
def test_gradients_are_those_of_finite_differences(length):
    assert torch.autograd.gradcheck(selective_scan, inputs(length))


@pytest.mark.parametrize("strongest", [1e-3, 1.0, 100.0])
def test_no_decay_is_too_weak_or_too_strong_for_float32(strongest):
    tensors = inputs(150, torch.float32, strongest)
    outputs = selective_scan(*tensors)
    exact = defined(*(tensor.detach().double() for tensor in tensors))
    torch.testing.assert_close(outputs.double(), exact, rtol=1e-4, atol=1e-4)
    for gradient in torch.autograd.grad(outputs.sum(), tensors):
        assert gradient.isfinite().all()


def test_inputs_and_earlier_results_are_left_alone():
    """Blocks share their memory: nothing that was returned or given may lie in it."""
    tensors = inputs(20)
    kept = [tensor.detach().clone() for tensor in tensors]
    first = selective_scan(*tensors)
    again = first.detach().clone()
    selective_scan(*inputs(20, strongest=3.0)).sum().backward()
    torch.autograd.grad(first.sum(), tensors, retain_graph=True)
    assert torch.equal(first, again)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, kept, strict=True))
    one, other = (torch.autograd.grad(first.sum(), tensors, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_steps_lie_in_the_middles_of_equal_ratios(count):
    config = ModelConfig(width=8, heads=2)
    steps = spread_steps(config, count).double()
    assert (steps.min() > 0.001, steps.max() < 0.1) == (True, True)
    torch.testing.assert_close(steps.log().mean().exp().item(), 0.01, rtol=1e-5, atol=0)
    ratios = torch.full((count - 1,), 100 ** (1 / count)).double()
    torch.testing.assert_close(steps[1:] / steps[:-1], ratios, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        functional.softplus(step_projection(config, count).bias).double(), steps, rtol=1e-4, atol=0
    )
