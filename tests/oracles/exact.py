"""The definition, from the raw tensors and in 80-bit numbers: T of each operator, its Hankel spectra, what follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPS = float(np.finfo(np.float64).eps)
LARGEST = float(np.finfo(np.float64).max)


def wide(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers in the widest dtype that numpy has, whatever its layout."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex():
        return plain.to(torch.complex128).numpy().astype(np.clongdouble)
    return plain.to(torch.float64).numpy().astype(np.longdouble)


def recurrence(A: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> np.ndarray:
    """T[i, j] = C_i A_i … A_{j+1} B_j, plus D; the real part of complex ones."""
    transition, write, read = wide(A), wide(B), wide(C)
    length = write.shape[-2]
    full = A.ndim == B.ndim + 1
    steps = transition if full else transition[..., None, :]
    return _run(
        lambda t, state: (
            np.matmul(steps[..., t, :, :], state) if full else np.swapaxes(steps[..., t, :, :], -1, -2) * state
        ),
        write,
        read,
        np.zeros(length, np.longdouble) if D is None else wide(D),
        np.broadcast_shapes(
            transition.shape[: -3 if full else -2],
            write.shape[:-2],
            read.shape[:-2],
            () if D is None else tuple(D.shape[:-1]),
        ),
    )


def state_space(A: Tensor, B: Tensor, C: Tensor, D: Tensor, length: int | None) -> np.ndarray:
    """T[i, j] = C_i A_{i−1} … A_{j+1} B_j and T[i, i] = D_i, of one input and one output; constant with a length."""
    steps = [wide(tensor) for tensor in (A, B, C, D)]
    if length is not None:
        steps = [np.repeat(step[..., None, :, :], length, -3) for step in steps]
    transition, write, read, feed = steps
    count, states = transition.shape[-3:-1]
    batch = np.broadcast_shapes(*(step.shape[:-3] for step in steps))
    T, state = (np.zeros((*batch, rows, count), np.longdouble) for rows in (count, states))
    with np.errstate(all="ignore"):
        for t in range(count):
            T[..., t, :] = np.matmul(read[..., t, :, :], state)[..., 0, :]
            T[..., t, t] = feed[..., t, 0, 0]
            state = np.matmul(transition[..., t, :, :], state)
            state[..., t] = write[..., t, :, 0]
    return T


def delta_rule(key: Tensor, beta: Tensor, query: Tensor, decay: Tensor) -> np.ndarray:
    """T of x_t = (I − beta k kᵀ) Diag(decay) x_{t−1} + beta k u_t, y_t = qᵀ x_t."""
    k, b, q, a = wide(key), wide(beta), wide(query), wide(decay)
    # Also where an operator holds the rounded product: in float64 it is made anew.
    written = b[..., None] * k
    a = a[..., None] if a.ndim == k.ndim - 1 else a

    def advance(t: int, state: np.ndarray) -> np.ndarray:
        decayed = a[..., t, :, None] * state
        kept = k[..., t, :, None]
        return decayed - b[..., t, None, None] * kept * np.matmul(np.swapaxes(kept, -1, -2), decayed)

    batch = np.broadcast_shapes(k.shape[:-2], b.shape[:-1], q.shape[:-2], a.shape[:-2])
    return _run(advance, written, q, np.zeros(k.shape[-2], np.longdouble), batch)


def _run(advance, write, read, feed, batch) -> np.ndarray:
    length, states = write.shape[-2:]
    T = np.zeros((*batch, length, length), np.longdouble)
    state = np.zeros((*batch, states, length), np.result_type(write, read))
    with np.errstate(all="ignore"):
        for t in range(length):
            state = advance(t, state) + 0
            state[..., t] = write[..., t, :]
            T[..., t, :] = np.matmul(read[..., t, None, :], state)[..., 0, :].real
            T[..., t, t] += feed[..., min(t, feed.shape[-1] - 1)]
    return T


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
    """Singular values of one cut of a batch of operators.

    Attributes:
        values: (..., P, r), descending, zero-padded.
        slack: How far they may be from the exact ones, (..., P): T rounded to 64 bits, and LAPACK's own error.
        norm: ‖H_i‖_F, (..., P).
        size: The largest entry of T.
    """

    values: np.ndarray
    slack: np.ndarray
    norm: np.ndarray
    size: float


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
    """All singular values of T[i:i+h, i−w:i] at some positions.

    Args:
        T: (..., L, L).
        positions: Cut positions.
        past: A window, or None.
        future: A window, or None.
        rounding: Of the entries of a T ≥ 0, relative to them.
        lost: Of all singular values.
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
    top = values.max(-1, initial=0)
    return Spectra(
        values, (8 * length * EPS + rounding) * top + 1e-320 * length + lost, norm, float(np.abs(T).max(initial=0))
    )


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
