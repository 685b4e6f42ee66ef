"""What the four sequence mixers share: projections, short convolution, heads, normalised output."""

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
    """A sequence mixer with heads, whose mixing of each head is one causal operator T.

    The input is projected to queries, keys and values, which pass a short causal convolution. Each head maps its
    values by T to mixed values; these are RMS-normalised per head and projected to the output. `operator(hidden)` is
    exactly that T: `operator(hidden).dense() @ values(hidden)` equals `mixed_values(hidden)`.

    Args:
        config: Shape of the model.
    """

    kind: ClassVar[str]
    """Short name of the mixer: "sa", "la", "wla" or "gla"."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_size, self.value_size = config.heads, config.key_size, config.value_size
        self._sizes = [self.heads * self.key_size, self.heads * self.key_size, config.width]
        self.projection = nn.Linear(config.width, sum(self._sizes), bias=False)
        self.convolution = ShortConvolution(sum(self._sizes), config.convolution_size)
        self.norm_weight = nn.Parameter(torch.ones(self.heads, self.value_size))
        self.output_projection = nn.Linear(config.width, config.width, bias=False)

    @property
    def multiplicity(self) -> int:
        """Value channels that share one T: d_v."""
        return self.value_size

    @abstractmethod
    def operator(self, hidden: Tensor) -> Operator:
        """T of every head at one input.

        Args:
            hidden: What `forward` receives, (S, L, d).

        Returns:
            An operator of batch shape (sequence, head), in the module's dtype.
        """

    @abstractmethod
    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each head after mixing, before the norm, in the training form.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, H, L, d_v).
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

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved values of each head.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, H, L, d_v).
        """
        return self._query_key_value(hidden)[2]

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """
        return self._emit(self.mixed_values(hidden).transpose(1, 2))

    def _query_key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved queries, keys and values, (S, H, L, n), (S, H, L, n) and (S, H, L, d_v)."""
        query, key, value = self._split(self.convolution(self.projection(hidden)))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _step_query_key_value(self, hidden: Tensor, cache: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The same for one token, (S, H, n), (S, H, n) and (S, H, d_v), with the cache of the convolution."""
        convolved, cache = self.convolution.step(self.projection(hidden), cache)
        return self._split(convolved), cache

    def _split(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = torch.split(tensor, self._sizes, dim=-1)
        query, key, value = (part.reshape(*part.shape[:-1], self.heads, -1) for part in (query, key, value))
        return query, key, value

    def _emit(self, mixed: Tensor) -> Tensor:
        """Norm per head and output projection: (..., H, d_v) to (..., d)."""
        normed = functional.rms_norm(mixed, (self.value_size,), eps=NORM_EPSILON) * self.norm_weight
        return self.output_projection(normed.flatten(-2))
