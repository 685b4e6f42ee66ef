"""An engine against the definition, on every output that it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from statesize.operators import Operator, Shared
from statesize.spectra.cut import Cut, Positions, make_cut
from statesize.spectra.engine import Engine, HankelBlocks
from statesize.spectra.spectrum import Spectrum, denormal_error, largest


def own_cut(operator: Operator, positions: Positions = None, past: int | None = None, future: int | None = None) -> Cut:
    """The cut with as many rows per position as the operator has readouts."""
    readouts = operator.outputs if isinstance(operator, Shared) else 1
    return replace(make_cut(operator.length, positions, past, future), readouts=readouts)


def compare_with_definition(engine: Engine, operator: Operator, cut: Cut) -> None:
    """Assert that all outputs of an engine lie within its stated bounds of the definition."""
    blocks, plain = engine.blocks(operator, cut), _definition(operator, cut)
    largest = float(plain.values.max()) if plain.values.numel() else 1.0
    _compare_counts(engine.name, blocks, plain, largest)
    (entropy, error), (exact, exact_error) = blocks.entropies(), plain.entropies()
    assert bool(((entropy - exact).abs() <= error + exact_error).all()), engine.name
    torch.testing.assert_close(blocks.norms(), plain.norms(), rtol=1e-9, atol=1e-12 * largest)
    if "values" in engine.outputs:
        compare_values(operator, cut, blocks.singular_values(), blocks.error_bound)


def _compare_counts(name: str, blocks: HankelBlocks, plain: HankelBlocks, largest: float) -> None:
    for kind, shares, scale in (("counts", [0.3, 1e-2, 1e-5], largest), ("relative_counts", [0.5, 1e-3], 1.0)):
        thresholds = scale * torch.tensor(shares, dtype=torch.float64)
        counts, expected = (getattr(known, kind)(thresholds) for known in (blocks, plain))
        assert bool((counts.lower <= expected.upper).all()), name
        assert bool((expected.lower <= counts.upper).all()), name
        assert bool(((counts.lower <= counts.count) & (counts.count <= counts.upper)).all()), name


def compare_values(operator: Operator, cut: Cut, values: Tensor, bound: Tensor) -> None:
    """Hold singular values, (…, P, K), to those of the definition within their bounds, (…, P)."""
    defined = _definition(operator, cut).values
    width = max(defined.shape[-1], values.shape[-1])
    expected, found = (pad(part, (0, width - part.shape[-1])) for part in (defined, values))
    assert bool((largest((found - expected).abs()) <= bound + 1e-14 * largest(defined)).all()), f"at {cut.positions}"


def _definition(operator: Operator, cut: Cut) -> Spectrum:
    """The singular values of each H_i, whose entries are picked one by one: what engines cut by is not asked."""
    matrix = operator.to(torch.float64).dense()
    matrix = matrix.flatten(-3, -2) if isinstance(operator, Shared) else matrix
    picked, length = list[Tensor](), operator.length
    for i in cut.positions:
        future, past = cut.future or length - i, cut.past or i
        after = [k for k in range(length) if i <= k < i + future]
        rows = [cut.readouts * k + readout for k in after for readout in range(cut.readouts)]
        picked.append(matrix[..., rows, :][..., [k for k in range(length) if i - past <= k < i]])
    limits = [min(block.shape[-2:]) for block in picked]
    values = matrix.new_zeros(*operator.batch_shape, len(picked), max(limits, default=0))
    for index, block in enumerate(picked):
        values[..., index, : limits[index]] = cast("Any", torch.linalg).svdvals(block)
    top = largest(values)
    # LAPACK Users' Guide, section 4.9.
    round_off = 8 * max(matrix.shape[-2:]) ** 0.5 * torch.finfo(torch.float64).eps
    return Spectrum(values, round_off * top + denormal_error(top), torch.tensor(limits, dtype=torch.int64))
