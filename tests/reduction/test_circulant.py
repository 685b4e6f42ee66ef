import pytest
import torch
from oracles.kernels import bump, irregular, late, modes
from torch import Tensor

from statesize.operators import Convolution
from statesize.reduction.convolutions import circulant_norm
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine


@pytest.mark.parametrize("length", [2, 3, 16, 17, 40])
def test_no_singular_value_passes_the_norm(length: int) -> None:
    kernels = torch.stack([irregular(0, length), modes(0, 2, length), late(length), bump(length), irregular(1, length)])
    for scale in (1e-30, 1.0, 1e30):
        largest = DenseEngine().blocks(Convolution(kernels * scale, length), make_cut(length)).values.amax((-2, -1))
        bound = circulant_norm(kernels[:, 1:] * scale)
        assert bool((largest <= bound).all())
        assert bool((bound <= 3 * largest + (length < 16) * bound).all())


@pytest.mark.parametrize("kernel", [torch.ones(29).double(), (-1.0) ** torch.arange(29).double(), late(29)])
def test_it_is_below_the_sum_of_the_taps(kernel: Tensor) -> None:
    assert float(circulant_norm(kernel)) <= (1 + 1e-9) * float(kernel.abs().sum())
