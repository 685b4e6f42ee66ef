"""State-space models in the convention of control engineering: outputs read the state before the input enters it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from statesize.check import require_count
from statesize.operators.checked import checked_sizes, promoted
from statesize.operators.operator import TensorOperator, alike
from statesize.operators.recurrence import Recurrence


class StateSpace(TensorOperator):
    """x_{t+1} = A_t x_t + B_t u_t, y_t = C_t x_t + D_t u_t, with n states, m inputs and p outputs.

    This is the discrete-time model of control engineering. `Recurrence` has the convention of machine learning, where
    y_t reads the state after its update: the same matrices make another operator there. H_i is p (L − i) by m i, of the
    blocks C_r A_{r−1} … A_{c+1} B_c. Where A, B and C are constant and stable, its singular values at L / 2 tend to the
    Hankel singular values of the system as L grows. Those of a continuous system are those of its bilinear transform
    (Glover, 1984), as `scipy.signal.cont2discrete` makes it.

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
        self._constant = length is not None
        step, own = ("", 2) if self._constant else ("L ", 3)
        forms = {"A": (A, "n n"), "B": (B, "n m"), "C": (C, "p n"), "D": (D, "p m")}
        sizes, batch = checked_sizes({name: (tensor, step + form) for name, (tensor, form) in forms.items()})
        tensors = [A, B, C, A.new_zeros(*A.shape[:-2], sizes["p"], sizes["m"]) if D is None else D]
        self.A, self.B, self.C, self.D = (part.expand(*batch, *part.shape[-own:]) for part in promoted(tensors))
        self._parts = tuple((name, own) for name in "ABCD")
        self.inputs, self.outputs = sizes["m"], sizes["p"]
        self._describe(self.A, sizes["L"] if length is None else require_count("length", length), batch)
        self._state_size = torch.tensor(sizes["n"], device=self.device).expand(self.length)

    def dense(self) -> Tensor:
        """T with the inputs of a step side by side, and its outputs below each other, (..., L p, L m)."""
        identity = torch.eye(self.length * self.inputs, dtype=self.dtype, device=self.device)
        return self.apply(identity.expand(*self.batch_shape, -1, -1))

    def apply(self, inputs: Tensor) -> Tensor:
        """T u by stepping, (..., L p, channels); inputs (..., L m, channels), of a step below each other."""
        state, rows = inputs.new_zeros(*self.batch_shape, self.A.shape[-1], inputs.shape[-1]), list[Tensor]()
        entering = inputs.reshape(*inputs.shape[:-2], self.length, self.inputs, inputs.shape[-1])
        for u, A, B, C, D in zip(*(part.unbind(-3) for part in (entering, *self._every_step())), strict=True):
            rows.append(C @ state + D @ u)
            state = A @ state + B @ u
        return torch.cat(rows, -2)

    def shares_state(self) -> bool:
        """See `Operator.shares_state`."""
        return all(alike(getattr(self, name), own) for name, own in self._parts[:2])

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a step have its weight."""
        A, B, C, D = self._every_step()
        scale = weights[..., None, None].to(self.dtype)
        return type(self)(A, B * scale, C, D * scale)

    def one_at_a_time(self) -> Recurrence:
        """A recurrence of p + m steps for each: p that read an output, then m that write an input; without D."""
        # Its H at i (p + m) is H_i with rows and columns of zeros in between.
        A, B, C, _ = self._every_step()
        unit = torch.eye(A.shape[-1], dtype=self.dtype, device=self.device).expand_as(A).unsqueeze(-3)
        steps = [unit] * self.outputs + [A.unsqueeze(-3)] + [unit] * (self.inputs - 1)
        written, read = torch.cat([torch.zeros_like(C), B.mT], -2), torch.cat([C, torch.zeros_like(B.mT)], -2)
        return Recurrence(torch.cat(steps, -3).flatten(-4, -3), written.flatten(-3, -2), read.flatten(-3, -2))

    def _every_step(self) -> list[Tensor]:
        """A, B, C and D of each step, (..., L, rows, columns)."""
        parts, batch = [self.A, self.B, self.C, self.D], (*self.batch_shape, self.length)
        return [part.unsqueeze(-3).expand(*batch, -1, -1) for part in parts] if self._constant else parts
