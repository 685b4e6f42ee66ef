from dataclasses import replace

import pytest
import torch
from oracles.agreement import RATIOS, agree
from oracles.kernels import irregular
from torch import Tensor

from statesize.errors import EngineError
from statesize.operators import Convolution
from statesize.spectra.cut import make_cut
from statesize.spectra.engine import HankelBlocks
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.realisation import SecondOpinion

LENGTH = 24
OPERATOR = Convolution(irregular(0, LENGTH, (3,)), LENGTH)
CUT = make_cut(LENGTH)


def opinions(error: float, asked: list[tuple[int, list[int]]]) -> SecondOpinion:
    """Blocks of which one is off by nearly as much as it says, and notes of what was asked again."""
    exact = DenseEngine().blocks(OPERATOR, CUT)
    sign = torch.tensor([1.0, -1.0]).double().repeat(exact.values.shape[-1] // 2 + 1)[: exact.values.shape[-1]]
    off = torch.where(exact.values > 0, (exact.values + 0.9 * error * sign).clamp(min=0), 0.0)
    blocks = replace(exact, values=off, error_bound=exact.error_bound + error)

    def again(entry: int, places: Tensor) -> HankelBlocks:
        asked.append((entry, places.tolist()))
        return DenseEngine().blocks(OPERATOR[entry : entry + 1], make_cut(LENGTH, places + 1))

    return SecondOpinion(blocks, again)


def test_what_is_left_open_is_as_exact_as_the_second_opinion() -> None:
    asked: list[tuple[int, list[int]]] = []
    found, exact = opinions(1e-3, asked), DenseEngine().blocks(OPERATOR, CUT)
    scale = float(exact.values.max())
    tau = torch.cat([RATIOS * scale, exact.values[1, 7, 2:4]])
    counts, expected = found.counts(tau), exact.counts(tau)
    for part in ("count", "lower", "upper"):
        assert torch.equal(getattr(counts, part), getattr(expected, part))
    assert asked
    relative = found.relative_counts(RATIOS)
    assert torch.equal(relative.lower, exact.relative_counts(RATIOS).lower)
    entropy, bound = found.entropies(1e-6)
    assert bool(((entropy - exact.entropies(1e-6)[0]).abs() <= bound).all())
    assert bool((bound <= 1e-6 * entropy).all())


def test_what_is_certain_is_not_asked_again() -> None:
    asked: list[tuple[int, list[int]]] = []
    found = opinions(1e-9, asked)
    agree(found, DenseEngine().blocks(OPERATOR, CUT))
    assert asked == []
    exact = DenseEngine().blocks(OPERATOR, CUT).values
    found.counts(exact[2, 11, :1] * (1 + 1e-11))
    assert asked == [(2, [11])]


def test_relative_counts_may_stay_as_open_as_was_said() -> None:
    asked: list[tuple[int, list[int]]] = []
    found = opinions(1e-3, asked)
    values = DenseEngine().blocks(OPERATOR, CUT).values[0, 11]
    ratios = values[5:6] / values[0]
    strict = found.relative_counts(ratios)
    times = len(asked)
    assert times > 0
    loose = found.relative_counts(ratios, 0.9)
    assert len(asked) == times
    assert bool((loose.lower <= strict.count).all())
    assert bool((strict.count <= loose.upper).all())


def test_bounds_one_apart_are_close_enough() -> None:
    asked: list[tuple[int, list[int]]] = []
    found = opinions(1e-3, asked)
    values = DenseEngine().blocks(OPERATOR, CUT).values[0, 11]
    loose = found.relative_counts(values[5:6] / values[0], 1e-6)
    assert int((loose.upper - loose.lower).max()) == 1
    assert bool(all((loose.upper - loose.lower)[entry, places].max() == 0 for entry, places in asked))


def test_values_are_refused() -> None:
    with pytest.raises(EngineError, match="convolution"):
        opinions(1e-3, []).singular_values()
