"""The module is the recurrence: for sequences, position by position, and with gradients."""

import pytest
import torch

from statesize.operators import Convolution
from statesize.reduction.reduce import reduce


def operator(batch=(3,)):
    g = torch.Generator().manual_seed(0)
    return Convolution(torch.randn(*batch, 20, generator=g, dtype=torch.float64), 20)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_sequences_and_steps_equal_the_operator(batch):
    convolution = operator(batch)
    module = reduce(convolution).module()
    values = torch.randn(4, *batch, 20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = convolution.apply(values)
    with torch.no_grad():
        torch.testing.assert_close(module(values), expected, rtol=1e-9, atol=1e-9)
        state, stepped = module.initial_state(values[..., 0, :]), []
        for t in range(20):
            read, state = module.step(values[..., t, :], state)
            stepped.append(read)
    torch.testing.assert_close(torch.stack(stepped, -2), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(reduce(convolution).recurrence.apply(values), expected, rtol=1e-9, atol=1e-9)


def test_a_depthwise_convolution_of_torch_with_other_lengths():
    convolution = torch.nn.Conv1d(3, 3, 6, groups=3, padding=5, bias=False).double()
    kernel = convolution.weight.detach()[:, 0].flip(-1)
    module = reduce(Convolution(kernel, 6)).module()
    for length in (2, 6, 40):
        values = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        expected = convolution(values.mT)[..., :length].mT
        torch.testing.assert_close(module(values.mT[..., None])[..., 0].mT, expected)


def test_parameters_are_its_own_and_can_be_trained_and_saved():
    found = reduce(operator(), state_size=4)
    one, other = found.module().float(), found.module()
    one(torch.randn(3, 8, 2)).square().sum().backward()
    assert [name for name, parameter in one.named_parameters() if parameter.grad.abs().sum() > 0] == [
        "A",
        "B",
        "C",
        "D",
    ]
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
    assert other.A.dtype == torch.float64
    assert bool(found.system.A.any())
    assert bool(other.A.any())
    one.load_state_dict(other.state_dict())
    torch.testing.assert_close(one.A.double(), other.A, rtol=1e-5, atol=1e-6)
