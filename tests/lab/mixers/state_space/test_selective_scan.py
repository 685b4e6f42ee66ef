"""The selective scan against the recurrence that it stands for."""

import pytest
import torch

from statesize.lab.mixers.state_space import selective_scan as module
from statesize.lab.mixers.state_space.selective_scan import selective_scan
from statesize.operators import Recurrence


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


@pytest.mark.usefixtures("block_numbers")
def test_gradients_equal_those_of_the_recurrence():
    tensors = inputs(20)
    weights = torch.randn(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = torch.autograd.grad((selective_scan(*tensors) * weights).sum(), tensors)
    expected = torch.autograd.grad((defined(*tensors) * weights).sum(), tensors)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


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


def test_a_gradient_of_the_gradient_is_refused():
    tensors = inputs(3)
    (gradient,) = torch.autograd.grad(selective_scan(*tensors).square().sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
