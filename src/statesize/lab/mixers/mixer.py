"""What all sequence mixers share: projection, short convolution, normalised output; and heads with queries and keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.config import ModelConfig
from statesize.operators import Operator

NORM_EPSILON = 1e-5


class ShortConvolution(nn.Module):
    """Causal depthwise convolution y_t = Σ_s w_s u_{t−s}, one kernel of `size` taps for each channel."""

    # A mixer's operator acts on what comes out of it.

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, size))
        """Kernels (channels, size); the last tap is the present token."""
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolves whole sequences, (S, L, channels); what lies before them is 0."""
        length = inputs.shape[-2]
        padded = functional.pad(inputs, (0, 0, self.size - 1, 0))
        outputs = padded[..., :length, :] * self.weight[:, 0]
        for tap in range(1, self.size):
            outputs = torch.addcmul(outputs, padded[..., tap : tap + length, :], self.weight[:, tap])
        return outputs

    def step(self, inputs: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves one more token, (S, channels); the cache holds the inputs before it, oldest first."""
        window = torch.cat([cache, inputs[:, None]], dim=1)
        return (window * self.weight.T).sum(dim=1), window[:, 1:]

    def initial_cache(self, batch: int) -> Tensor:
        """The cache before the first token: zeros, (S, size − 1, channels)."""
        return self.weight.new_zeros(batch, self.size - 1, self.weight.shape[0])


State: TypeAlias = tuple[Tensor, ...]
"""What the units of a mixer keep from one token to the next, (S, …) each."""


class Mixer(nn.Module, ABC):
    """A sequence mixer of several units (heads or channels), each of which mixes by one causal operator T.

    The input is projected, and what comes out passes a short causal convolution. Each unit maps its values by T to
    mixed values; these are RMS-normalised per head and projected to the output. `operator(hidden)` is exactly that T:
    `operator(hidden).dense() @ values(hidden)` equals `mixed_values(hidden)`. Class attributes say what a mixer has of
    this frame.

    Args:
        config: Shape of the model.
        sizes: Widths of what the input is projected to; the last is that of the values.
    """

    kind: ClassVar[str]
    """Short name of the mixer, such as "gla"; a key of `MIXERS`."""
    convolved: ClassVar[bool] = True
    """Whether what the input is projected to passes a short convolution."""
    activated: ClassVar[bool] = False
    """Whether a silu follows the short convolution."""
    normed: ClassVar[bool] = True
    """Whether the mixed values of each head are RMS-normalised."""
    gated: ClassVar[bool] = False
    """Whether the output is multiplied by silu(W x) before its projection."""
    compiles: ClassVar[bool] = True
    """Whether `torch.compile` makes it faster."""

    def __init__(self, config: ModelConfig, sizes: list[int]) -> None:
        super().__init__()
        self.config = config
        self.heads, self.key_size = config.heads, config.key_size
        self.value_size = config.value_size
        self._sizes = sizes
        self.projection = nn.Linear(config.width, sum(sizes), bias=False)
        taps = config.convolution_size
        self.convolution = ShortConvolution(sum(sizes), taps) if self.convolved else None
        self.gate_projection = nn.Linear(config.width, config.width, bias=False) if self.gated else None
        self.norm_weight = nn.Parameter(torch.ones(self.heads, self.value_size)) if self.normed else None
        self.output_projection = nn.Linear(config.width, config.width, bias=False)

    @property
    def multiplicity(self) -> int:
        """How many value channels P share one T, 1 where each channel has its own."""
        return 1

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
    def initial_state(self, batch: int) -> State:
        """The state before the first token.

        Args:
            batch: Number of sequences S.
        """

    @abstractmethod
    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token of every sequence in the step form.

        Args:
            parts: What the input is projected to, convolved: (S, size) for each of the sizes; by head in a `HeadMixer`.
            hidden: (S, d).
            state: From `initial_state` or the previous token; it is not changed.

        Returns:
            The values of each unit after mixing, before the norm, (S, …), and the next state.
        """

    def initial_cache(self, batch: int) -> State:
        """The cache of `step` before the first token.

        Args:
            batch: Number of sequences S.

        Returns:
            What the short convolution keeps, (S, taps − 1, all sizes), and the state.
        """
        kept = self.projection.weight.new_zeros(batch, 0, sum(self._sizes))
        return kept if self.convolution is None else self.convolution.initial_cache(batch), *self.initial_state(batch)

    def step(self, hidden: Tensor, cache: State) -> tuple[Tensor, State]:
        """One token of every sequence; equals `forward` on the whole sequence.

        Args:
            hidden: (S, d).
            cache: From `initial_cache` or the previous step; it is not changed.

        Returns:
            The output (S, d) and the next cache.
        """
        parts, kept = self._step_convolved(hidden, cache[0])
        mixed, state = self.advance(parts, hidden, cache[1:])
        return self._emit(mixed.flatten(1), hidden), (kept, *state)

    @torch.no_grad()
    def cache_bytes(self, length: int) -> int:
        """Bytes that the cache of `step` holds of one sequence at its end.

        Args:
            length: Tokens of the sequence, L.

        Returns:
            The bytes of all its tensors, what short convolutions keep included.
        """
        # A cache has parts of constant size and parts that grow with each token; one step separates them.
        empty = self.initial_cache(1)
        _, one = self.step(self.projection.weight.new_zeros(1, self.config.width), empty)
        before, after = (sum(part.nbytes for part in cache) for cache in (empty, one))
        return before + length * (after - before)

    @abstractmethod
    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, unit, L, P).
        """

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences.

        Args:
            hidden: (S, L, d).

        Returns:
            (S, L, d).
        """
        return self._emit(self.mixed_values(hidden).transpose(1, 2).flatten(-2), hidden)

    def _convolved(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """What the input is projected to, convolved: one (S, L, size) for each of the sizes."""
        convolved = self.projection(hidden)
        if self.convolution is not None:
            convolved = self.convolution(convolved)
        return self._activated(convolved)

    def _step_convolved(self, hidden: Tensor, cache: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same for one token, (S, size) each, with the cache of the convolution."""
        convolved = self.projection(hidden)
        if self.convolution is not None:
            convolved, cache = self.convolution.step(convolved, cache)
        return self._activated(convolved), cache

    def _activated(self, convolved: Tensor) -> tuple[Tensor, ...]:
        """One part for each of the sizes, (..., size)."""
        return torch.split(functional.silu(convolved) if self.activated else convolved, self._sizes, dim=-1)

    def _emit(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """Norm per head, gate and output projection of all channels, (..., d), at an input (..., d)."""
        if self.norm_weight is not None:
            by_head = mixed.reshape(*mixed.shape[:-1], self.heads, self.value_size)
            mixed = (functional.rms_norm(by_head, (self.value_size,), eps=NORM_EPSILON) * self.norm_weight).flatten(-2)
        if self.gate_projection is not None:
            mixed = mixed * functional.silu(self.gate_projection(hidden))
        return self.output_projection(mixed)

    @torch.no_grad()
    def set_initial_values(self) -> list[Tensor]:
        """Gives the parameters of `initial_values` their first values.

        Returns:
            These parameters.
        """
        return [self.get_parameter(name).copy_(value) for name, value in self.initial_values().items()]


class HeadMixer(Mixer):
    """A mixer whose input is projected to queries, keys and values; the value channels of a head share one T."""

    def __init__(self, config: ModelConfig) -> None:
        keys = config.heads * config.key_size
        super().__init__(config, [keys, keys, config.width])

    @property
    def multiplicity(self) -> int:
        """How many value channels share one T, d_v."""
        return self.value_size

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved values of each head, (S, H, L, d_v)."""
        return self._query_key_value(hidden)[2]

    def initial_state(self, batch: int) -> State:
        """Zeros, (S, H, n, d_v)."""
        return (self.projection.weight.new_zeros(batch, self.heads, self.key_size, self.value_size),)

    def _query_key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convolved queries, keys and values, (S, H, L, n), (S, H, L, n) and (S, H, L, d_v)."""
        query, key, value = (self._by_head(part).transpose(1, 2) for part in self._convolved(hidden))
        return query, key, value

    def _step_convolved(self, hidden: Tensor, cache: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same for one token, (S, H, n), (S, H, n) and (S, H, d_v), with the cache of the convolution."""
        parts, cache = super()._step_convolved(hidden, cache)
        return tuple(map(self._by_head, parts)), cache

    def _by_head(self, part: Tensor) -> Tensor:
        return part.reshape(*part.shape[:-1], self.heads, -1)
