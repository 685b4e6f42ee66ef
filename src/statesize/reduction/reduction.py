"""Time-invariant recurrences that reproduce a kernel, also as a torch module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.operators import Recurrence
from statesize.operators.convolution import causal_convolution
from statesize.operators.stepped import DelayedRecurrence
from statesize.spectra.realisation import circulant_norm


@dataclass(frozen=True, eq=False)
class System:
    """x_{t+1} = A x_t + B u_t, y_t = C x_t, so that k_{1+n} = C Aⁿ B.

    Attributes:
        A: (..., r, r).
        B: (..., r).
        C: (..., r).
    """

    A: Tensor
    B: Tensor
    C: Tensor

    def taps(self, count: int) -> Tensor:
        """k_1 … k_count.

        Args:
            count: Number of taps.

        Returns:
            (..., count); differentiable.
        """
        # C Aᵗ for t < count, by squaring A, (..., count, r).
        rows, power = self.C[..., None, :], self.A
        while rows.shape[-2] < count:
            rows = torch.cat([rows, rows @ power], -2)
            if rows.shape[-2] < count:
                power = power @ power
        return (rows[..., :count, :] @ self.B[..., None]).squeeze(-1)

    def distance(self, kernel: Tensor) -> Tensor:
        """A bound on the distance of this system's operator from that of a kernel, in the ℓ²-induced norm.

        Their difference is a part of a circulant matrix of any order N ≥ 2 L, whose norm is max |DFT_N|. The round-off
        of a step x_{t+1} = A x_t + B u_t is at most γ (|A| |x_t| + |B| |u_t|) in each entry, and C Aˢ maps it to the
        output s steps later. The bound contains this twice: for the taps computed here, and for the steps of a user.

        Args:
            kernel: k_1 … k_{L−1}, (..., L − 1).

        Returns:
            An upper bound on ‖T − T_r‖₂, (...); infinite where powers of A overflow.
        """
        lags = kernel.shape[-1]
        states, rows = state_powers(self.A, self.B, lags), state_powers(self.A.mT, self.C, lags)
        finite = (torch.isfinite(states) & torch.isfinite(rows)).all(-1).all(-1)
        states, rows = (torch.where(finite[..., None, None], part, 0) for part in (states, rows))
        taps = (states @ self.C[..., None]).squeeze(-1)
        bound = circulant_norm(functional.pad(taps - kernel, (0, lags + 1)))
        step_errors = torch.cat([self.B[..., None, :].abs(), states[..., :-1, :].abs() @ self.A.mT.abs()], -2)
        sensitivity = rows.abs().cumsum(-2).flip(-2)
        error = (step_errors * sensitivity).sum((-2, -1)) + (states.abs() @ self.C[..., None].abs()).sum((-2, -1))
        gamma = (self.B.shape[-1] + 2) * torch.finfo(taps.dtype).eps
        return torch.where(finite, bound + gamma * error, torch.inf)


def state_powers(A: Tensor, x: Tensor, count: int) -> Tensor:
    """Aᵗ x for t < count, (..., count, r), in steps: more accurate than by squaring if A has large entries."""
    states = [x]
    for _ in range(count - 1):
        states.append((A @ states[-1][..., None]).squeeze(-1))
    return torch.stack(states, -2)


class ReducedConvolution(nn.Module):
    """y_t = C x_t + D u_t, x_{t+1} = A x_t + B u_t, for whole sequences or a position at a time.

    As for `Operator.apply`, the leading dimensions of values broadcast with the kernels' batch shape, and every channel
    of the last dimension is mixed alike. A depthwise convolution of d kernels takes (..., d, L, 1).

    Args:
        system: A, B and C, which become trainable parameters.
        feed: D, the batch shape.
    """

    def __init__(self, system: System, feed: Tensor) -> None:
        super().__init__()
        self.A, self.B, self.C = (nn.Parameter(part.clone()) for part in (system.A, system.B, system.C))
        self.D = nn.Parameter(feed.clone())

    def forward(self, values: Tensor) -> Tensor:
        """Whole sequences, by the taps of the recurrence and a fast Fourier transform.

        Args:
            values: u, (..., L, channels); L may be any length.

        Returns:
            y, (..., L, channels).
        """
        later = System(self.A, self.B, self.C).taps(values.shape[-2])[..., :-1]
        kernel = torch.cat([self.D[..., None], later], -1)
        return causal_convolution(kernel[..., None, :], values.mT).mT

    def initial_state(self, values: Tensor) -> Tensor:
        """The state before the first position.

        Args:
            values: The first values for `step`, (..., channels).

        Returns:
            Zeros (..., r, channels).
        """
        return torch.zeros_like(self.B[..., None] * values[..., None, :])

    def step(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One position; equals `forward` on the whole sequence.

        Args:
            values: u_t, (..., channels).
            state: x_t, from `initial_state` or the previous step.

        Returns:
            y_t, (..., channels), and x_{t+1}.
        """
        read = (self.C[..., None, :] @ state).squeeze(-2) + self.D[..., None] * values
        return read, self.A @ state + self.B[..., None] * values[..., None, :]


Method: TypeAlias = Literal["ho_kalman", "balanced"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """The recurrence x_{t+1} = A x_t + B u_t, y_t = C x_t + D u_t of a convolution, in float64.

    Attributes:
        system: A (..., r, r), B and C (..., r).
        feed: D, the tap k_0, (...).
        length: L.
        method: "ho_kalman", states from H_{L/2}; or "balanced", the truncation of the zero-extended kernel.
        singular_values: Those of the Hankel matrix that the method decomposes, descending, (..., N).
        bound: Upper bound of the distance of T from the recurrence in the ℓ²-induced norm, (...): that of
            `System.distance` over the L positions; with "balanced" 2 Σ dropped σ if that is smaller.
    """

    system: System
    feed: Tensor
    length: int
    method: Method
    singular_values: Tensor
    bound: Tensor

    def __repr__(self) -> str:
        return (
            f"A convolution over {self.length} positions as a recurrence of {self.state_size} states\n"
            f"distance of T from it, in the norm of operators: at most {float(self.bound.max()):.2g}\n"
            "next: .recurrence, .module(), .singular_values"
        )

    @property
    def state_size(self) -> int:
        """The number of states r; 0 for a kernel without memory."""
        return self.system.B.shape[-1]

    @cached_property
    def recurrence(self) -> Recurrence:
        """The operator; its outputs read the state before the input is written. It stores L (2 r)² numbers."""
        # An operator has at least one state, which may stay 0.
        idle = int(self.state_size == 0)
        A = functional.pad(self.system.A, (0, idle, 0, idle))
        B, C = (functional.pad(part, (0, idle)) for part in (self.system.B, self.system.C))
        shape = (*self.feed.shape, self.length)
        A, B, C = A.unsqueeze(-3), B.unsqueeze(-2), C.unsqueeze(-2)
        states = B.shape[-1:]
        return DelayedRecurrence(
            A.expand(*shape, *states, *states),
            B.expand(*shape, *states),
            C.expand(*shape, *states),
            self.feed[..., None],
        )

    def module(self) -> ReducedConvolution:
        """The recurrence as a torch module for inputs of any length, with trainable parameters.

        Returns:
            A new module at each call.
        """
        return ReducedConvolution(self.system, self.feed)
