from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import RATIOS, agree
from oracles.kernels import bump, irregular, late, modes

import statesize as ss
from statesize.operators import Convolution
from statesize.spectra.convolution import ConvolutionEngine
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import Question, choose_engine, dispatch
from statesize.spectra.engine import HankelBlocks
from statesize.spectra.exact.dense import DenseEngine

# Not only decompositions at the lengths that a test can afford.
ENGINE = ConvolutionEngine(quick=100, width=8, vectors=24)


def check(kernel: torch.Tensor, length: int, cut: Cut | None = None, engine: ConvolutionEngine = ENGINE) -> str:
    """Which way it went."""
    operator = Convolution(kernel, length)
    cut = cut or make_cut(length)
    blocks = engine.blocks(operator, cut)
    agree(blocks, DenseEngine().blocks(operator, cut))
    return blocks.way


@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 70))
def test_irregular_kernels_agree_with_the_definition(seed: int, length: int, taps: int) -> None:
    check(irregular(seed, taps), length)


@given(st.integers(0, 2**31), st.integers(40, 100), st.integers(1, 6))
def test_damped_modes_agree_with_the_definition(seed: int, length: int, count: int) -> None:
    check(modes(seed, count, length), length)


@pytest.mark.parametrize("length", [131, 300])
def test_each_kind_of_kernel_goes_its_way(length: int) -> None:
    every = make_cut(length, 60 if length == 300 else None)
    assert check(modes(0, 4, length), length, every) == "realisation"
    assert check(irregular(0, length), length, every) == "exact"
    assert check(irregular(0, length), length, make_cut(length, 3)) == "exact"
    assert check(irregular(0, 3), length, every) == "decompositions"
    if length >= 256:  # from which on strips of columns are compared
        assert check(irregular(0, length), length) == "tridiagonal"
        assert check(bump(length), length, every) in ("realisation", "streaming")


@pytest.mark.parametrize("length", [2, 3, 30, 31, 64, 129])
def test_kernels_of_few_taps(length: int) -> None:
    for kernel in (torch.zeros(3).double(), torch.ones(1).double(), irregular(0, 2), irregular(0, 5), late(length)):
        check(kernel, length)


def test_a_realisation_that_fits_badly_is_left() -> None:
    disturbed = modes(0, 3, 131) + 1e-6 * irregular(1, 131)
    assert check(disturbed, 131, engine=replace(ENGINE, dropped=1e-4, rough=1e-9)) == "exact"


def test_of_a_rounded_kernel_what_the_realisation_leaves_open_is_computed_again() -> None:
    length = 131
    operator = Convolution(modes(0, 3, length).float().double(), length)
    blocks = ENGINE.blocks(operator, make_cut(length))
    plain = DenseEngine().blocks(operator, make_cut(length))
    counts, expected = blocks.counts(plain.values[40, :3]), plain.counts(plain.values[40, :3])
    assert torch.equal(counts.lower, expected.lower)
    assert torch.equal(counts.upper, expected.upper)
    assert blocks.way == "realisation and exact"
    agree(blocks, plain)
    strict = replace(ENGINE, rough=ENGINE.close)
    assert "realisation" not in strict.blocks(operator, make_cut(length)).way


def test_low_rank_that_is_not_realised_is_streamed() -> None:
    engine = replace(ENGINE, close=0, rough=0)
    assert check(modes(0, 4, 257), 257, make_cut(257, 60), engine) == "streaming"


def test_a_short_kernel_costs_the_same_at_any_length() -> None:
    kernel, length = irregular(0, 20), 10**6
    positions = [1, 7, 19, 20, 500, 10**6 - 20, 10**6 - 19, 10**6 - 1]
    found = ENGINE.blocks(Convolution(kernel, length), make_cut(length, positions))
    short = Convolution(kernel, 60)
    agree(found, DenseEngine().blocks(short, make_cut(60, [1, 7, 19, 20, 30, 40, 41, 59])))


def test_batches_of_all_kinds() -> None:
    length = 131
    kernels = torch.stack([irregular(0, length), modes(0, 3, length), late(length), irregular(3, length)])
    kernels = torch.stack([kernels, torch.stack([modes(1, 2, length), 0 * kernels[0], kernels[0], kernels[1]])])
    way = check(kernels, length, make_cut(length, [130, 2, 65, 66, 64, 2, *range(3, 60, 2)]))
    assert set(way.split(" and ")) >= {"realisation", "exact"}
    empty = ENGINE.blocks(Convolution(kernels[:0], length), make_cut(length))
    assert empty.counts(RATIOS).count.shape == (0, 4, 130, 5)
    assert empty.entropies(1e-3)[0].shape == (0, 4, 130)
    assert ENGINE.blocks(Convolution(kernels, length), make_cut(length, [])).norms().shape == (2, 4, 0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale: float) -> None:
    length = 131
    for kernel in (irregular(0, length), modes(0, 3, length), irregular(0, 5), late(length)):
        check(kernel * scale, length)


def test_mirrored_positions_are_the_same() -> None:
    blocks = ENGINE.blocks(Convolution(irregular(0, 90), 90), make_cut(90))
    for answer in (blocks.norms(), blocks.counts(RATIOS).count, *blocks.entropies(1e-3)):
        assert torch.equal(answer, answer.flip(0))


def test_relative_counts_to_an_accuracy() -> None:
    length = 131
    plain = DenseEngine().blocks(Convolution(irregular(0, length), length), make_cut(length)).relative_counts(RATIOS)
    found = ENGINE.blocks(Convolution(irregular(0, length), length), make_cut(length))
    close = found.relative_counts(RATIOS, 0.2)
    assert bool((close.lower <= plain.count).all())
    assert bool((plain.count <= close.upper).all())
    assert bool((close.upper - close.lower <= (0.2 * close.upper).clamp(min=1)).all())


def test_it_is_asked_first_and_says_which_way_it_took() -> None:
    length = 131
    operator = Convolution(torch.stack([irregular(0, length), modes(0, 2, length)]), length)
    cut = make_cut(length)
    assert choose_engine(operator, cut, ("counts", "relative")).name == "convolution"
    assert choose_engine(operator, cut, ("counts", "values")).name == "convolution"
    assert choose_engine(operator, make_cut(length, past=5), ("entropy",)).name == "convolution"

    def used(entries: Convolution) -> str:
        question = Question(cut, lambda blocks: {"entropy": blocks.entropies(1e-3)[0], **known(blocks)})
        return dispatch(entries, ENGINE, question)[1]

    def known(blocks: HankelBlocks) -> dict[str, torch.Tensor]:
        return {"norm": blocks.norms(), "error_bound": blocks.error_bound}

    assert used(operator[1]) == "convolution (realisation)"
    assert set(used(operator).removeprefix("convolution (").removesuffix(")").split(" and ")) == {
        "realisation",
        "exact",
    }


def test_everything_comes_from_singular_values_once_they_are_asked() -> None:
    length = 131
    operator = Convolution(torch.stack([irregular(0, length), modes(0, 3, length)]), length)
    found = ss.measure(operator, outputs=("counts", "entropy", "values"), engine="convolution")
    plain = ss.measure(operator, outputs=("counts", "entropy", "values"), engine="dense")
    assert found.engine == "convolution (decompositions)"
    assert found.entropy_bound is not None
    assert float(found.entropy_bound.max()) < 1e-9
    for name in ("count", "relative_count", "entropy", "values", "norm"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name))
