"""The convolution by Fourier transform against the Toeplitz matrix."""

import pytest
import torch

from statesize.operators import Convolution
from statesize.operators.convolution import causal_convolution


@pytest.mark.parametrize("length", [1, 2, 7, 64, 65])
def test_it_is_the_toeplitz_matrix_of_the_kernel(length):
    generator = torch.Generator().manual_seed(length)
    kernel = torch.randn(3, length, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    expected = (Convolution(kernel, length).dense() @ inputs.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(causal_convolution(kernel, inputs), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, 5, generator=generator, dtype=torch.float64) for shape in ((3,), (2, 3))]
    assert torch.autograd.gradcheck(causal_convolution, [tensor.requires_grad_() for tensor in tensors])
