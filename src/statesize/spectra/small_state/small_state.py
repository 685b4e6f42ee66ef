"""All singular values of real diagonal recurrences of few states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence
from statesize.operators.transition import DiagonalTransition
from statesize.spectra.cut import Cut
from statesize.spectra.engine import DOUBLE, OUTPUTS, Engine, Footprint
from statesize.spectra.exact.dense import largest_state
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import Spectrum

# States up to which it works, and recurrences side by side.
_MOST_STATES, _LANES = 32, 32


@dataclass(frozen=True)
class SmallStateEngine(Engine):
    """Real diagonal recurrences of few states, 32 side by side; its kernels are compiled when first needed."""

    name = "small_state"
    outputs = frozenset(OUTPUTS)
    works_on = (Recurrence,)
    operators = "real diagonal recurrences of at most 32 states"
    block_bytes = 2**27

    def supports(self, operator: Operator) -> bool:
        """Whether it is a real diagonal recurrence of at most 32 states."""
        if not isinstance(operator, Recurrence) or operator.is_complex:
            return False
        return isinstance(operator.transition, DiagonalTransition) and operator.B.shape[-1] <= _MOST_STATES

    @torch.no_grad()
    def blocks(self, operator: Operator, cut: Cut) -> Spectrum:
        """The spectrum, r = min(n, the largest min(rows, columns)); without gradients."""
        from statesize.spectra.small_state.lanes import factor_products

        recurrence = cast("Recurrence", operator)
        shape, (length, n) = recurrence.batch_shape, recurrence.B.shape[-2:]
        requested = torch.tensor(cut.positions, dtype=torch.int64)
        positions, place = cast("tuple[Tensor, Tensor]", requested.unique(return_inverse=True))
        products = torch.zeros(shape.numel(), len(positions), n, n, dtype=torch.float64)
        errors = products.new_zeros(products.shape[:2])
        if products.numel():
            parts = (recurrence.A, recurrence.B, recurrence.C)
            flat = [part.expand(*shape, length, n).reshape(-1, length, n).resolve_neg().contiguous() for part in parts]
            # Powers of 2, so that no square is lost.
            scales = [torch.exp2(part.abs().amax((-2, -1)).log2().floor().clamp(min=-1000)) for part in flat[1:]]
            A, (B, C) = flat[0], (part / scale[:, None, None] for part, scale in zip(flat[1:], scales, strict=True))
            factor_products(*(part.numpy() for part in (A, B, C)), positions.numpy(), products.numpy(), errors.numpy())
            products, errors = (part * scales[0].view(-1, *[1] * (part.ndim - 1)) for part in (products, errors))
            products, errors = (part * scales[1].view(-1, *[1] * (part.ndim - 1)) for part in (products, errors))
        limit, r = cut.limits, min(n, cut.largest_rank)
        values = singular_values(products)[:, place, :r]
        # A block of fewer rows or columns than states has no further singular values: the others are round-off.
        values = values.masked_fill(torch.arange(r) >= limit[:, None], 0)
        return Spectrum(values.reshape(*shape, len(place), r), errors[:, place].reshape(*shape, len(place)), limit)

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """See `Engine.seconds`."""
        n, entries = largest_state(operator), max(1, operator.batch_shape.numel())
        lanes = min(_LANES, entries)
        steps = cut.length * (6e-8 + 1e-9 * n**2) * (lanes + 2) * -(-entries // lanes) / entries
        return steps + len(cut.positions) * (3e-6 + 4e-9 * n**3)

    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """Singular values with their copies, and the factors of the recurrences that stand side by side."""
        n, positions = largest_state(operator), len(cut.positions)
        each = 3 * cut.length * n + 3 * positions * n**2
        return Footprint(DOUBLE * each, DOUBLE * _LANES * (positions + 4) * n**2)
