"""What reducing a convolution gives: a recurrence as an operator and as a torch module, and how near it comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional

from statesize.operators import Recurrence
from statesize.operators.delayed import DelayedRecurrence
from statesize.reduction.reduced_convolution import ReducedConvolution
from statesize.reduction.system import System

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
        bound: On the ℓ²-induced norm of T less that of the recurrence, (...). With "balanced" it is 2 Σ dropped σ or
            what was measured, whichever is smaller; with "ho_kalman" what was measured, over the L positions.
    """

    system: System
    feed: Tensor
    length: int
    method: Method
    singular_values: Tensor
    bound: Tensor

    @property
    def state_size(self) -> int:
        """States r; 0 for a kernel that remembers nothing."""
        return self.system.B.shape[-1]

    @cached_property
    def recurrence(self) -> Recurrence:
        """The operator; its outputs read the state before the input is written to it. It holds L (2 r)² numbers."""
        # An operator has one state at least, which may stay 0.
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
        """The same as a torch module for inputs of any length; its parameters can be trained.

        Returns:
            A new module at each call.
        """
        return ReducedConvolution(self.system, self.feed)
