"""Hankel singular values at 60 digits, formed and decomposed by mpmath from the recurrence itself."""

import mpmath
import torch

from statesize.operators import Recurrence


def exact_singular_values(
    recurrence: Recurrence, position: int, past: int | None = None, future: int | None = None
) -> list[mpmath.mpf]:
    """Singular values of an unbatched real recurrence; every float64 entry is taken exactly."""
    states, length = recurrence.B.shape[-1], recurrence.length
    A = recurrence.A if recurrence.A.ndim == 3 else torch.diag_embed(recurrence.A.expand(length, states))
    columns, rows = [], []
    with mpmath.workdps(60):
        for step, write, read in zip(A.tolist(), recurrence.B.tolist(), recurrence.C.tolist(), strict=True):
            columns = [mpmath.matrix(step) * column for column in columns]
            if len(columns) < position:
                columns.append(mpmath.matrix(write))
            else:
                rows.append([(mpmath.matrix([read]) * column)[0] for column in columns])
    first = 0 if past is None else position - past
    return matrix_singular_values([row[first:] for row in rows[:future]])


def matrix_singular_values(rows: list[list[float | mpmath.mpf]]) -> list[mpmath.mpf]:
    """Singular values of a real matrix whose entries are taken exactly."""
    with mpmath.workdps(60):
        return list(mpmath.svd_r(mpmath.matrix(rows), compute_uv=False))
