"""A convolution that steps: the recurrence of a kernel as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statesize.lab.mixers.convolution.causal_convolution import causal_convolution
from statesize.reduction.system import System


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
            values: What `step` will get first, (..., channels).

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
