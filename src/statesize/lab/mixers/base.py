"""Base of all sequence mixers: projection, short convolution, norm of each head and output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.config import ModelConfig
from statesize.operators import Operator

NORM_EPSILON = 1e-5

State: TypeAlias = tuple[Tensor, ...]
"""State of the units of a mixer from one token to the next, (S, …) each."""


class ShortConvolution(nn.Module):
    """Causal depthwise convolution y_t = Σ_s w_s u_{t−s}, one kernel of `size` taps for each channel."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, size))
        """Kernels (channels, size); the last tap is the present token."""
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolves whole sequences, (S, L, channels); before them stand zeros."""
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
        """Zeros, (S, size − 1, channels)."""
        return self.weight.new_zeros(batch, self.size - 1, self.weight.shape[0])


class Mixer(nn.Module, ABC):
    """A sequence mixer of several units (heads or channels), each of which mixes by one causal operator T.

    The input is projected to parts, which pass a short causal convolution. Each unit maps its values by T to mixed
    values; these are RMS-normalised per head and projected to the output. `operator(hidden)` is exactly that T:
    `operator(hidden).dense() @ values(hidden)` equals `mixed_values(hidden)`.

    Args:
        config: Shape of the model.
        sizes: Widths of the parts; the last is that of the values.
        activated: Whether a silu follows the convolution.
        gated: Whether the output is multiplied by silu(W x) before its projection.
    """

    kind: ClassVar[str]
    """The name by which `@mixer` registered it."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Parameters that keep the first values of the constructor; a `LanguageModel` draws the others anew."""

    def __init__(self, config: ModelConfig, sizes: list[int], *, activated: bool = False, gated: bool = False) -> None:
        super().__init__()
        self.config, self.heads, self.key_size, self.value_size = (
            config, config.heads, config.key_size, config.value_size,
        )  # fmt: skip
        self._sizes, self._activated = sizes, activated
        self.projection = nn.Linear(config.width, sum(sizes), bias=False)
        self.convolution = ShortConvolution(sum(sizes), config.convolution_size)
        self.gate_projection = nn.Linear(config.width, config.width, bias=False) if gated else None
        self.norm_weight = nn.Parameter(torch.ones(self.heads, self.value_size))
        self.output_projection = nn.Linear(config.width, config.width, bias=False)

    @property
    def multiplicity(self) -> int:
        """Number of value channels P that share one T, 1 where each channel has its own."""
        return 1

    @abstractmethod
    def operator(self, hidden: Tensor) -> Operator:
        """T of every unit at hidden states (S, L, d): an operator of batch shape (sequence, unit)."""

    @abstractmethod
    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T, (S, unit, L, P)."""

    @abstractmethod
    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values after mixing, before the norm, in the training form, (S, unit, L, P)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences, (S, L, d) to (S, L, d)."""
        return self.emit(self.mixed_values(hidden).transpose(1, 2).flatten(-2), hidden)

    def parts(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The input projected and convolved: one (S, L, size) for each of the sizes."""
        return self._split(self.convolution(self.projection(hidden)))

    def emit(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """Norm per head, gate and output projection of all channels, (..., d), at an input (..., d)."""
        by_head = mixed.reshape(*mixed.shape[:-1], self.heads, self.value_size)
        mixed = (functional.rms_norm(by_head, (self.value_size,), eps=NORM_EPSILON) * self.norm_weight).flatten(-2)
        if self.gate_projection is not None:
            mixed = mixed * functional.silu(self.gate_projection(hidden))
        return self.output_projection(mixed)

    def _split(self, convolved: Tensor) -> tuple[Tensor, ...]:
        return torch.split(functional.silu(convolved) if self._activated else convolved, self._sizes, dim=-1)


class SteppedMixer(Mixer):
    """A mixer with a step form, which takes one token of every sequence after another."""

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of so many sequences before the first token."""

    @abstractmethod
    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token of every sequence in the step form.

        Args:
            parts: Projected and convolved, (S, size) each.
            hidden: (S, d).
            state: From `initial_state` or the previous token; it is not changed.

        Returns:
            The values after mixing, before the norm, (S, …), and the next state.
        """

    def initial_cache(self, batch: int) -> State:
        """The cache of `step` before the first token: that of the convolution, (S, taps − 1, parts), and the state."""
        return self.convolution.initial_cache(batch), *self.initial_state(batch)

    def step(self, hidden: Tensor, cache: State) -> tuple[Tensor, State]:
        """One token of every sequence, (S, d); equals `forward` on the whole sequence.

        Args:
            hidden: (S, d).
            cache: From `initial_cache` or the previous step; it is not changed.

        Returns:
            The output (S, d) and the next cache.
        """
        convolved, kept = self.convolution.step(self.projection(hidden), cache[0])
        mixed, state = self.advance(self._split(convolved), hidden, cache[1:])
        return self.emit(mixed.flatten(1), hidden), (kept, *state)

    @torch.no_grad()
    def cache_bytes(self, length: int) -> int:
        """Bytes that the cache of `step` holds of one sequence of so many tokens."""
        # A cache has parts of constant size and parts that grow with each token; one step separates them.
        empty = self.initial_cache(1)
        _, after_one = self.step(self.projection.weight.new_zeros(1, self.config.width), empty)
        before, after = (sum(part.nbytes for part in cache) for cache in (empty, after_one))
        return before + length * (after - before)


class HeadMixer(Mixer):
    """A mixer whose input is projected to queries, keys and values; the value channels of a head share one T."""

    def __init__(self, config: ModelConfig, *, activated: bool = False, gated: bool = False) -> None:
        keys = config.heads * config.key_size
        super().__init__(config, [keys, keys, config.width], activated=activated, gated=gated)

    @property
    def multiplicity(self) -> int:
        """Number of value channels that share one T, d_v."""
        return self.value_size

    def query_key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (S, L, d), or of one token (S, d): (S, H, L, n), (S, H, L, n), (S, H, L, d_v)."""
        query, key, value = (self.by_head(part).transpose(1, 2) for part in self.parts(hidden))
        return query, key, value

    def by_head(self, part: Tensor) -> Tensor:
        """A part (..., H · n) as (..., H, n)."""
        return part.reshape(*part.shape[:-1], self.heads, -1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved values of each head, (S, H, L, d_v)."""
        return self.query_key_value(hidden)[2]

    def initial_state(self, batch: int) -> State:
        """Zeros, (S, H, n, d_v)."""
        return (self.projection.weight.new_zeros(batch, self.heads, self.key_size, self.value_size),)
