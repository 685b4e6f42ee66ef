"""Every engine on every family, at every scale and many lengths, against the definition."""

import pytest
import torch
from oracles.operators import FAMILIES, random_operator, scaled

from statesize.operators import Operator
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import Counts
from statesize.spectra.exact.dense import DenseEngine

RATIOS = torch.tensor([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7], dtype=torch.float64)


def wrong(found: Counts, expected: Counts) -> int:
    """Counts that contradict what the definition is certain of, or lie outside their own bounds."""
    outside = (found.lower > expected.upper) | (expected.lower > found.upper)
    outside |= (found.count < found.lower) | (found.count > found.upper)
    certain = (found.lower == found.upper) & (expected.lower == expected.upper)
    return int((outside | (certain & (found.count != expected.count))).sum())


def check(operator: Operator, positions: int) -> tuple[int, int, int]:
    """How many counts were compared, how many entropies were estimated, and how many of these lie beyond their bounds.

    All counts and all other entropies must hold.
    """
    cut = make_cut(operator.length, positions)
    plain = DenseEngine().blocks(operator, cut)
    largest = float(plain.values.max())
    tau = RATIOS * (largest or 1.0)
    entropy, entropy_error = plain.entropies()
    checked = estimated = off = 0
    for name, engine in ENGINES.items():
        if name == "dense" or engine.unsupported_reason(operator, cut, ("counts", "entropy")) is not None:
            continue
        blocks = engine.blocks(operator, cut)
        assert wrong(blocks.counts(tau), plain.counts(tau)) == 0, name
        assert wrong(blocks.relative_counts(RATIOS), plain.relative_counts(RATIOS)) == 0, name
        found, error = blocks.entropies()
        outside = (found - entropy).abs() > error + entropy_error
        if name == "implicit":
            # Its intervals are of 95 %.
            open_ = error > 2e-4 * found
            estimated, off, outside = estimated + int(open_.sum()), off + int(outside[open_].sum()), outside & ~open_
        assert not bool(outside.any()), name
        checked += 2 * len(cut.positions) * len(RATIOS)
    return checked, estimated, off


def run(family: str, seeds: range, lengths: tuple[int, ...]) -> int:
    checked = estimated = off = 0
    for seed in seeds:
        length = lengths[seed % len(lengths)]
        operator = random_operator(family, seed, length)
        factor = (1.0, 1e-30, 1e30)[seed % 3]
        found = check(operator if factor == 1 else scaled(operator, factor), 24)
        checked, estimated, off = checked + found[0], estimated + found[1], off + found[2]
    # As rare as one in a thousand, were they independent.
    assert off <= 0.05 * estimated + 3 * (0.05 * 0.95 * estimated) ** 0.5
    return checked


@pytest.mark.few(8)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_wrong_count(family: str) -> None:
    assert run(family, range(1, 3), (2, 17, 33, 50)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_wrong_count_at_length(family: str) -> None:
    assert run(family, range(100, 136), (2, 5, 31, 65, 100, 129, 200, 257, 350, 512, 600, 700)) > 5000
