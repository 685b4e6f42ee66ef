"""Square-root factors of both Gramians of a recurrence, carried by QR: R_t R_tᴴ = L_t L_tᴴ and O_tᴴ O_t = S_tᴴ S_t.

R_t has the columns A_{t−1} … A_{s+1} B_s, the reachability of the state, O_t the rows C_r A_r … A_t, its observability
(docs/engines.md, "Square roots of the Gramians").
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from statesize.operators import Recurrence
from statesize.spectra.factorisation import triangular_factor


def reachability_factors(recurrence: Recurrence) -> Iterator[Tensor]:
    """L_1 … L_{L−1}, (..., n, n) each: L_{t+1}ᴴ = R of qr([(A_t L_t)ᴴ; B_tᴴ])."""
    shape, (length, states) = recurrence.batch_shape, recurrence.B.shape[-2:]
    factor = recurrence.B.new_zeros((*shape, states, states))
    for t in range(length - 1):
        row = recurrence.B[..., t, None, :].conj().expand(*shape, 1, states)
        factor = triangular_factor(torch.cat([recurrence.transition.advance(t, factor).mH, row], -2)).mH
        yield factor


def observability_factors(recurrence: Recurrence) -> Iterator[Tensor]:
    """S_{L−1} … S_1, (..., n, n) each: S_t = R of qr([S_{t+1}; C_t] A_t)."""
    shape, (length, states) = recurrence.batch_shape, recurrence.C.shape[-2:]
    factor = recurrence.C.new_zeros((*shape, states, states))
    for t in range(length - 1, 0, -1):
        row = recurrence.C[..., t, None, :].expand(*shape, 1, states)
        factor = triangular_factor(recurrence.transition.recede(t, torch.cat([factor, row], -2)))
        yield factor


def border_factors(observability: Tensor, reachability: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """L at the borders 0 … c − 1 and S at 1 … c, (..., c, n, n), of c chunks."""
    # Chunk k has the rows C_t Φ(t, β_k), the columns Φ(β_{k+1}, s) B_s and the transition Φ(β_{k+1}, β_k):
    # (..., c, b, n), (..., c, n, b) and (..., c, n, n).
    phi, columns, rows = (part.unbind(-3) for part in (transition, reachability, observability))
    L, S = [torch.zeros_like(phi[0])], [torch.zeros_like(phi[0])]
    for k in range(len(phi) - 1):
        L.append(after_chunk(L[-1], phi[k], columns[k]))
    for k in range(len(phi) - 1, 0, -1):
        S.append(before_chunk(S[-1], phi[k], rows[k]))
    return torch.stack(L, -3), torch.stack(S[::-1], -3)


def after_chunk(L: Tensor, transition: Tensor, columns: Tensor) -> Tensor:
    """L after a chunk from the one before it, (..., n, n)."""
    return triangular_factor(torch.cat([(transition @ L).mH, columns.mH], -2)).mH


def before_chunk(S: Tensor, transition: Tensor, rows: Tensor) -> Tensor:
    """S before a chunk from the one after it, (..., n, n)."""
    return triangular_factor(torch.cat([rows, S @ transition], -2))
