"""State-space models in the convention of control engineering: outputs read the state before the input enters it."""

from __future__ import annotations

import functools
from typing import Any, Self, cast

import torch
from torch import Tensor

from statesize.check import broadcast_batch, require_count, require_finite, require_floating, require_same_device, shape
from statesize.errors import InputError
from statesize.operators.operator import TensorOperator
from statesize.operators.recurrence import Recurrence

_linalg = cast("Any", torch.linalg)


class StateSpace(TensorOperator):
    """x_{t+1} = A_t x_t + B_t u_t, y_t = C_t x_t + D_t u_t, with m inputs and p outputs at each step.

    This is the discrete-time model of control engineering. `Recurrence` has the convention of machine learning, where
    y_t reads the state after its update: the same matrices make another operator there. H_i is p (L − i) by m i, of the
    blocks C_r A_{r−1} … A_{c+1} B_c. Where A, B and C are constant and stable, its singular values at L / 2 tend to the
    Hankel singular values of the system as L grows.

    Args:
        A: (..., n, n) with a length, else (..., L, n, n).
        B: (..., n, m) with a length, else (..., L, n, m).
        C: (..., p, n) with a length, else (..., L, p, n).
        D: (..., p, m) with a length, else (..., L, p, m); part of `dense()`, never of H_i. None for 0.
        length: Number of steps L of constant matrices; None where each step has its own.

    Raises:
        InputError: Wrong shapes or dtypes, or not finite.

    Example:
        >>> import torch
        >>> lag = StateSpace(torch.tensor([[0.5]]), torch.ones(1, 1), torch.ones(1, 1), length=3)
        >>> lag.dense()
        tensor([[0.0000, 0.0000, 0.0000],
                [1.0000, 0.0000, 0.0000],
                [0.5000, 1.0000, 0.0000]])
    """

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, *, length: int | None = None) -> None:
        tensors = {"A": A, "B": B, "C": C} | ({} if D is None else {"D": D})
        step = "" if length is not None else "L, "
        for name, tensor in tensors.items():
            require_floating(name, tensor)
            if tensor.ndim != A.ndim or tensor.ndim < (2 if length is not None else 3):
                advice = (
                    "Give length for constant matrices." if length is None else "Leave length out for one per step."
                )
                raise InputError(f"{name} must have shape (..., {step}rows, columns), got {shape(tensor)}. {advice}")
        n, m, p = B.shape[-2], B.shape[-1], C.shape[-2]
        expected = {"A": (n, n), "B": (n, m), "C": (p, n), "D": (p, m)}
        for name, tensor in tensors.items():
            if tensor.shape[-2:] != expected[name] or 0 in tensor.shape[-2:]:
                raise InputError(
                    f"{name} must have {expected[name]} as its last sizes, at least 1, got {shape(tensor)}."
                )
            require_finite(name, tensor)
        require_same_device(tensors)
        self._constant = length is not None
        steps = require_count("length", length) if length is not None else A.shape[-3]
        tail = 2 if self._constant else 3
        if not self._constant and any(tensor.shape[-3] != steps for tensor in tensors.values()):
            shapes = ", ".join(f"{name} {shape(tensor)}" for name, tensor in tensors.items())
            raise InputError(f"A, B, C and D must have the same length, got {shapes}.")
        batch = broadcast_batch({name: tensor.shape[:-tail] for name, tensor in tensors.items()})
        tensors.setdefault("D", A.new_zeros(*A.shape[:-2], p, m))
        dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))
        parts = (tensor.to(dtype).expand(*batch, *tensor.shape[-tail:]) for tensor in tensors.values())
        self.A, self.B, self.C, self.D = parts
        self._parts = tuple((name, tail) for name in "ABCD")
        self.inputs, self.outputs = m, p
        self._describe(self.A, steps, torch.Size(batch))

    @classmethod
    def from_continuous(cls, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, *, length: int) -> Self:
        """The discrete model with the same Hankel singular values as dx/dt = A x + B u, y = C x + D u.

        The bilinear transformation z = (1 + s/f) / (1 − s/f) leaves both Gramians as they are (Glover, 1984), for every
        f. Here f is the geometric mean of the smallest and the largest |eigenvalue|, so that the slowest and fastest
        mode need about the same length.

        Args:
            A: (n, n), stable.
            B: (n, m).
            C: (p, n).
            D: (p, m), or None for 0.
            length: Number of steps L.

        Returns:
            A model of L steps.

        Raises:
            InputError: Wrong shapes or dtypes, not finite, or not stable.

        Example:
            >>> from statesize.metrics import hankel_singular_values
            >>> one = torch.ones(1, 1, dtype=torch.float64)
            >>> lag = StateSpace.from_continuous(-2 * one, one, one, length=60)  # 1 / (s + 2)
            >>> round(hankel_singular_values(lag, positions=[30]).item(), 6)
            0.25
        """
        cls(A, B, C, D, length=length)
        if A.ndim != 2:
            raise InputError(f"A must have shape (n, n), got {shape(A)}.")
        eigenvalues = _linalg.eigvals(A)
        slowest = float(eigenvalues.real.max())
        if slowest >= 0:
            raise InputError(
                f"A must be stable, with eigenvalues left of the imaginary axis, got one at {slowest:.3g}. Give the "
                "stable part alone."
            )
        f = float((eigenvalues.abs().min() * eigenvalues.abs().max()).sqrt())
        identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        left = _linalg.inv(identity - A / f)
        root, feed = (2 / f) ** 0.5, C @ left @ B / f
        feed = feed if D is None else feed + D
        return cls((identity + A / f) @ left, root * left @ B, root * C @ left, feed, length=length)

    def dense(self) -> Tensor:
        """T with the inputs of a step side by side, and its outputs below each other.

        Returns:
            (..., L p, L m), block lower triangular; (..., L, L) for one input and one output.
        """
        identity = torch.eye(self.length * self.inputs, dtype=self.dtype, device=self.device)
        return self.apply(identity.expand(*self.batch_shape, -1, -1))

    def columns(self, first: int, last: int) -> Tensor:
        """The columns of some steps, from their first rows on, (..., (L − first) p, (last − first) m)."""
        whole = self.dense().detach()
        return whole[..., first * self.outputs :, first * self.inputs : last * self.inputs]

    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping.

        Args:
            inputs: (..., L m, channels), the m inputs of a step below each other.

        Returns:
            (..., L p, channels).
        """
        state = inputs.new_zeros(*self.batch_shape, self.A.shape[-1], inputs.shape[-1])
        rows: list[Tensor] = []
        entering = inputs.reshape(*inputs.shape[:-2], self.length, self.inputs, inputs.shape[-1])
        for u, A, B, C, D in zip(*(part.unbind(-3) for part in (entering, *self._every_step())), strict=True):
            rows.append(C @ state + D @ u)
            state = A @ state + B @ u
        return torch.cat(rows, -2)

    def state_size(self) -> Tensor:
        """The order n at each step, (L,) int64."""
        return torch.full((self.length,), self.A.shape[-1], device=self.device)

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a step have its weight."""
        A, B, C, D = self._every_step()
        scale = weights[..., None, None].to(self.dtype)
        return type(self)(A, B * scale, C, D * scale)

    def one_at_a_time(self) -> Recurrence:
        """A recurrence of p + m steps for each: p that read an output, then m that write an input.

        Returns:
            A recurrence whose H at i (p + m) is H_i with rows and columns of zeros in between; without D.
        """
        A, B, C, _ = self._every_step()
        unit = torch.eye(A.shape[-1], dtype=self.dtype, device=self.device).expand_as(A).unsqueeze(-3)
        steps = [unit] * self.outputs + [A.unsqueeze(-3)] + [unit] * (self.inputs - 1)
        written, read = torch.cat([torch.zeros_like(C), B.mT], -2), torch.cat([C, torch.zeros_like(B.mT)], -2)
        return Recurrence(torch.cat(steps, -3).flatten(-4, -3), written.flatten(-3, -2), read.flatten(-3, -2))

    def _every_step(self) -> list[Tensor]:
        """A, B, C and D of each step, (..., L, rows, columns)."""
        parts, batch = (self.A, self.B, self.C, self.D), self.batch_shape
        if not self._constant:
            return list(parts)
        return [part.unsqueeze(-3).expand(*batch, self.length, *part.shape[-2:]) for part in parts]
