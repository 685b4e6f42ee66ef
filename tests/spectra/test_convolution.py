import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree
from oracles.operators import scaled
from torch import Tensor

import statesize as ss
from statesize.errors import EngineError
from statesize.operators import Convolution
from statesize.spectra import convolution, realisation
from statesize.spectra.convolution import convolution_blocks
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dense import dense_singular_values
from statesize.spectra.engine import choose_engine


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(seed: int, count: int, length: int, batch: tuple[int, ...] = ()) -> Tensor:
    """A sum of damped oscillations, some of them fast and some slow."""
    g = torch.Generator().manual_seed(seed)
    decay = 10 ** (-2 * torch.rand(*batch, count, 1, generator=g, dtype=torch.float64))
    angle = math.pi * torch.rand(*batch, count, 1, generator=g, dtype=torch.float64)
    weight = torch.randn(*batch, count, 1, generator=g, dtype=torch.float64)
    lag = torch.arange(length, dtype=torch.float64)
    return (weight * torch.exp(-decay * lag) * torch.cos(angle * lag)).sum(-2)


def smooth(length: int) -> Tensor:
    """Of low numerical rank, but not a sum of a few exponentials."""
    return torch.sinc((torch.arange(length, dtype=torch.float64) / length - 0.7) * 6)


def check(operator: Convolution, cut: Cut) -> str:
    blocks = convolution_blocks(operator, cut)
    agree(blocks, dense_singular_values(operator, cut))
    return blocks.way


@pytest.fixture
def every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only decompositions at the lengths that a test can afford."""
    monkeypatch.setattr(convolution, "_SHORT", 8)
    monkeypatch.setattr(convolution, "_WIDTH", 8)
    monkeypatch.setattr(realisation, "_VECTORS", 24)


@given(st.integers(0, 2**31), st.integers(2, 80), st.integers(1, 90))
def test_irregular_kernels_agree_with_the_definition(seed: int, length: int, taps: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "_SHORT", 8)
        check(Convolution(normal(seed, taps), length), make_cut(length))


@given(st.integers(0, 2**31), st.integers(40, 150), st.integers(1, 6))
def test_damped_modes_agree_with_the_definition(seed: int, length: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "_SHORT", 8)
        patch.setattr(convolution, "_WIDTH", 8)
        patch.setattr(realisation, "_VECTORS", 24)
        assert "distinct" not in check(Convolution(modes(seed, count, length), length), make_cut(length))


@pytest.mark.parametrize("length", [131, 300])
@pytest.mark.usefixtures("every_way")
def test_each_kind_of_kernel_goes_its_way(length: int) -> None:
    cut = make_cut(length, 40)
    fitted, streamed, irregular = modes(0, 4, length), smooth(length), normal(0, length)
    short, late = normal(0, 5), torch.zeros(length, dtype=torch.float64)
    late[-1] = 1
    assert check(Convolution(fitted, length), cut) == "realisation"
    assert check(Convolution(irregular, length), cut) == "position_tree"
    assert check(Convolution(short, length), cut) == "distinct_blocks"
    assert check(Convolution(short[:1], length), cut) == "distinct_blocks"
    assert check(Convolution(0 * short, length), cut) == "distinct_blocks"
    print(check(Convolution(late, length), cut))
    print(check(Convolution(streamed, length), cut))
