"""What all sequence mixers share: projection, short convolution, normalised output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.mixers.config import ModelConfig
from statesize.mixers.short_convolution import ShortConvolution
from statesize.operators import Operator

NORM_EPSILON = 1e-5


class Mixer(nn.Module, ABC):
    """A sequence mixer of several units (heads or channels), each of which mixes by one causal operator T.

    The input is projected, and what comes out passes a short causal convolution. Each unit maps its values by T to
    mixed values; these are RMS-normalised per head and projected to the output. `operator(hidden)` is exactly that T:
    `operator(hidden).dense() @ values(hidden)` equals `mixed_values(hidden)`.

    Args:
        config: Shape of the model.
        sizes: Widths of what the input is projected to.
    """

    kind: ClassVar[str]
    """Short name of the mixer, such as "gla"; a key of `MIXERS`."""

    def __init__(self, config: ModelConfig, sizes: list[int]) -> None:
        super().__init__()
        self.config = config
        self.heads, self.key_size, self.value_size = config.heads, config.key_size, config.value_size
        self._sizes = sizes
        self.projection = nn.Linear(config.width, sum(sizes), bias=False)
        self.convolution = ShortConvolution(sum(sizes), config.convolution_size)
        self.norm_weight = nn.Parameter(torch.ones(self.heads, self.value_size))
        self.output_projection = nn.Linear(config.width, config.width, bias=False)

    @property
    @abstractmethod
    def multiplicity(self) -> int:
        """Value channels P that share one T."""

    def initial_values(self) -> dict[str, Tensor]:
        """First values of the parameters that do not start as random matrices.

        Returns:
            Values by parameter name.
        """
        return {}

    @abstractmethod
    def operator(self, hidden: Tensor) -> Operator:
        """T of every head at one input.

        Args:
            hidden: What `forward` receives, (S, L, d).

        Returns:
            An operator of batch shape (sequence, unit), in the module's dtype.
        """

    @abstractmethod
    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each unit after mixing, before the norm, in the training form.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, unit, L, P).
        """

    @abstractmethod
    def initial_cache(self, batch: int) -> Any:
        """The cache of `step` before the first token.

        Args:
            batch: Number of sequences S.
        """

    @abstractmethod
    def step(self, hidden: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """One token of every sequence; equals `forward` on the whole sequence.

        Args:
            hidden: (S, d).
            cache: From `initial_cache` or the previous step; it is not changed.

        Returns:
            The output (S, d) and the next cache.
        """

    @abstractmethod
    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, unit, L, P).
        """

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """

    def _convolved(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """What the input is projected to, convolved: one (S, L, size) for each of the sizes."""
        return torch.split(self.convolution(self.projection(hidden)), self._sizes, dim=-1)

    def _step_convolved(self, hidden: Tensor, cache: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same for one token, (S, size) each, with the cache of the convolution."""
        convolved, cache = self.convolution.step(self.projection(hidden), cache)
        return torch.split(convolved, self._sizes, dim=-1), cache

    def _emit(self, mixed: Tensor) -> Tensor:
        """Norm per head and output projection: (..., H, d_v) to (..., d)."""
        normed = functional.rms_norm(mixed, (self.value_size,), eps=NORM_EPSILON) * self.norm_weight
        return self.output_projection(normed.flatten(-2))

    def _set_initial_values(self) -> None:
        with torch.no_grad():
            for name, value in self.initial_values().items():
                self.get_parameter(name).copy_(value)
