"""Hankel singular values at 60 digits, formed and decomposed by mpmath from the recurrence itself."""

import mpmath
import torch

from statesize.operators import Recurrence


def exact_singular_values(
    recurrence: Recurrence, position: int, past: int | None = None, future: int | None = None
) -> list[mpmath.mpf]:
    """Singular values of an unbatched real recurrence; every float64 entry is taken exactly."""
    with mpmath.workdps(60):
        block = _block(recurrence, position)
        first = 0 if past is None else position - past
        rows = block.rows if future is None else future
        return list(mpmath.svd_r(block[:rows, first:], compute_uv=False))


def _block(recurrence: Recurrence, position: int) -> mpmath.matrix:
    n, length = recurrence.B.shape[-1], recurrence.length
    A = recurrence.A if recurrence.A.ndim == 3 else torch.diag_embed(recurrence.A.expand(length, n))
    exact = [mpmath.matrix(A[t].tolist()) for t in range(length)]
    columns = []
    for t in range(position):
        columns = [exact[t] * column for column in columns]
        columns.append(mpmath.matrix(recurrence.B[t].tolist()))
    rows = []
    for r in range(position, length):
        columns = [exact[r] * column for column in columns]
        output = mpmath.matrix([recurrence.C[r].tolist()])
        rows.append([(output * column)[0] for column in columns])
    return mpmath.matrix(rows)


def matrix_singular_values(matrix: torch.Tensor) -> list[mpmath.mpf]:
    """Singular values of a real matrix whose float64 entries are taken exactly."""
    with mpmath.workdps(60):
        return list(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False))
