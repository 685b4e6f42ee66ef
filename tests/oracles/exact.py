"""The definition, from the raw tensors: T of each operator, its Hankel spectra and what follows in 80-bit numbers.

And singular values of recurrences at 60 digits, by mpmath.
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
import torch
from torch import Tensor

EPS = float(np.finfo(np.float64).eps)


def wide(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers in the widest dtype that numpy has, whatever its layout."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex():
        return plain.to(torch.complex128).numpy().astype(np.clongdouble)
    return plain.to(torch.float64).numpy().astype(np.longdouble)


def recurrence(A: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> np.ndarray:
    """T[i, j] = C_i A_i … A_{j+1} B_j, plus D; the real part of complex ones."""
    transition = wide(A) if A.ndim == B.ndim + 1 else wide(A)[..., None] * np.eye(B.shape[-1])
    T = _run(transition, wide(B), wide(C))
    return T if D is None else T + _diagonal(wide(D), T.shape[-1])


def state_space(A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int | None) -> np.ndarray:
    """T[i, j] = C_i A_{i−1} … A_{j+1} B_j and T[i, i] = D_i, of one input and one output; constant with a length."""
    steps = [wide(tensor) for tensor in (A, B, C, D)]
    if length is not None:
        steps = [np.repeat(step[..., None, :, :], length, -3) for step in steps]
    transition, write, read, feed = steps
    # Read one step later: row i of T is row i − 1 of that of a recurrence.
    T = np.roll(_run(transition, write[..., 0], np.roll(read, -1, -3)[..., 0, :]), 1, -2)
    T[..., 0, :] = 0
    return T + _diagonal(feed[..., 0, 0], T.shape[-1])


def delta_rule(key: Tensor, beta: Tensor, query: Tensor, decay: Tensor) -> np.ndarray:
    """T of x_t = (I − beta k kᵀ) Diag(decay) x_{t−1} + beta k u_t, y_t = qᵀ x_t."""
    k, b, a = wide(key), wide(beta)[..., None], wide(decay)
    a = a[..., None] if a.ndim == k.ndim - 1 else a
    # Also where an operator holds the rounded product: in float64 it is made anew.
    transition = (np.eye(k.shape[-1]) - b[..., None] * k[..., :, None] * k[..., None, :]) * a[..., None, :]
    return _run(transition, b * k, wide(query))


def _run(transition: np.ndarray, write: np.ndarray, read: np.ndarray) -> np.ndarray:
    length, states = write.shape[-2:]
    batch = np.broadcast_shapes(transition.shape[:-3], write.shape[:-2], read.shape[:-2])
    T = np.zeros((*batch, length, length), np.longdouble)
    state = np.zeros((*batch, states, length), np.result_type(write, read))
    with np.errstate(all="ignore"):
        for t in range(length):
            state = np.matmul(transition[..., t, :, :], state)
            state[..., t] = write[..., t, :]
            T[..., t, :] = np.matmul(read[..., t, None, :], state)[..., 0, :].real
    return T


def _diagonal(feed: np.ndarray, length: int) -> np.ndarray:
    return feed[..., None] * np.eye(length)


def convolution(kernel: Tensor, length: int) -> np.ndarray:
    """T[i, j] = kernel[i − j]."""
    taps = wide(kernel)
    T = np.zeros((*taps.shape[:-1], length, length), np.longdouble)
    for lag in range(min(taps.shape[-1], length)):
        T[..., range(lag, length), range(length - lag)] = taps[..., lag, None]
    return T


def attention(query: Tensor, key: Tensor, scale: float, window: int | None) -> np.ndarray:
    """Softmax over the keys that a position may see."""
    q, k = wide(query), wide(key)
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * np.longdouble(scale)
    row = np.arange(q.shape[-2])
    lag = row[:, None] - row
    seen = (lag >= 0) & (lag < (window or len(row)))
    scores = np.where(seen, scores, -np.inf)
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def largest(tensor: Tensor) -> float:
    """The largest absolute value, as far as a double holds it."""
    return float(min(np.abs(wide(tensor)).max(initial=0), np.longdouble(1e300)))


@dataclass(frozen=True)
class Spectra:
    """Singular values of one cut of a batch of operators."""

    values: np.ndarray  # (..., P, r), descending, zero-padded
    slack: np.ndarray  # how far they may be from the exact ones, (..., P): T rounded to 64 bits, and LAPACK's own error
    norm: np.ndarray  # ‖H_i‖_F, (..., P)
    size: float  # the largest entry of T


def softmax_rounding(query: Tensor, key: Tensor, scale: float) -> float:
    """How far float64 can put an entry of softmax attention from the exact one, in units of itself.

    A score is off by (d + 2) eps Σ|q||k||scale|; so is the logarithm of the row's sum.
    """
    q, k = np.abs(wide(query)), np.abs(wide(key))
    score = np.matmul(q, np.swapaxes(k, -1, -2)).max(initial=0) * abs(scale)
    return float(min(4 * (q.shape[-1] + 2) * EPS * score, 1.0))


def spectra(
    T: np.ndarray, positions: list[int], past: int | None, future: int | None, rounding: float = 0.0, lost: float = 0.0
) -> Spectra:
    """All singular values of T[i:i+h, i−w:i], (..., L, L), at some positions, with and without windows.

    Entries of a T ≥ 0 may be off by `rounding` relative to themselves, and all singular values by `lost`.
    """
    batch, length = T.shape[:-2], T.shape[-1]
    blocks = [T[..., i : i + (future or length), max(0, i - (past or length)) : i] for i in positions]
    r = max((min(block.shape[-2:]) for block in blocks), default=0)
    values = np.zeros((*batch, len(positions), r))
    norm = np.zeros((*batch, len(positions)))
    for place, block in enumerate(blocks):
        # Scaled to 1, so that neither the rounding to 64 bits nor LAPACK meets a limit.
        scale = np.abs(block).max((-2, -1), keepdims=True, initial=0)
        unit = (block / np.where(scale > 0, scale, 1)).astype(np.float64)
        found = np.linalg.svd(unit, compute_uv=False) if unit.size else np.zeros((*batch, 0))
        values[..., place, : found.shape[-1]] = (found * scale[..., 0]).astype(np.float64)
        norm[..., place] = (np.sqrt((unit.astype(np.longdouble) ** 2).sum((-2, -1))) * scale[..., 0, 0]).astype(float)
    slack = (8 * length * EPS + rounding) * values.max(-1, initial=0) + 1e-320 * length + lost
    return Spectra(values, slack, norm, float(np.abs(T).max(initial=0)))


def effective_rank(values: np.ndarray) -> np.ndarray:
    """The exponential of the entropy of σ/Σσ, 0 where all are 0."""
    wide_values = values.astype(np.longdouble)
    total = wide_values.sum(-1, keepdims=True)
    p = wide_values / np.where(total > 0, total, 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return np.where(total[..., 0] > 0, np.exp(entropy), 0).astype(float)


def effective_rank_slack(values: np.ndarray, slack: np.ndarray, ess: np.ndarray) -> np.ndarray:
    """How far the effective rank can be off when every value is (Audenaert 2007, as in the docs of the engines)."""
    r = max(values.shape[-1], 1)
    total = values.sum(-1)
    distance = np.clip(np.where(total > r * slack, r * slack / np.where(total > 0, total, 1) * 2, 1.0), 0, 1)
    rest = 1 - distance
    binary = -distance * np.log(np.where(distance > 0, distance, 1)) - rest * np.log(np.where(rest > 0, rest, 1))
    change = np.minimum(distance * np.log(max(r - 1, 1)) + binary, np.log(r))
    return np.minimum(ess * np.expm1(change), r) + 1e-12


def exact_singular_values(recurrence, position: int, past: int | None = None, future: int | None = None) -> list:
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


def matrix_singular_values(rows: list) -> list:
    """Singular values of a real matrix whose entries are taken exactly."""
    with mpmath.workdps(60):
        return list(mpmath.svd_r(mpmath.matrix(rows), compute_uv=False))
