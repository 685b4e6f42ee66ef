"""S6, the selective state-space model of Mamba: each channel has a diagonal recurrence that depends on the input."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.decays import selective_initial_values
from statesize.lab.mixers.mixer import Mixer, StateCache
from statesize.lab.mixers.state_space.selective_scan import selective_scan
from statesize.operators import Recurrence


class S6(Mixer):
    """T from x_t = exp(Δ_t A) x_{t−1} + Δ_t B_t u_t, y_t = C_t x_t, for each channel; n = key_size states.

    u = silu of what the short convolution gives. Δ = softplus(W u + b) has one value a channel, B and C = W u are
    shared by the channels. A and b are learned; A starts at −1 … −n, or at −1/n … −n/n if `config.normalised`. There is
    no feed-through D u: the residual stream around the mixer is one.

    Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023.

    Args:
        config: Shape of the model; `normalised`, `smallest_step` and `largest_step` are where A and b start.
        state_sizes: How many of its n states each channel keeps, one number, as after `statesize.compress`; all where
            it is empty. C is then mapped to as many.
    """

    kind = "s6"
    activated = True
    compiles = False
    low_rank_steps: ClassVar[bool] = False
    """Whether W of Δ has rank ⌈d / 16⌉."""
    feedthrough: ClassVar[bool] = False
    """Whether D u is added to y, D learned for each channel."""

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        channels = self.expansion * config.width
        super().__init__(config, [channels])
        self.state_size = max(state_sizes, default=config.key_size)
        rank = math.ceil(config.width / 16) if self.low_rank_steps else None
        self.step_input = None if rank is None else nn.Linear(channels, rank, bias=False)
        self.step_projection = nn.Linear(rank or channels, channels)
        self.state_projection = nn.Linear(channels, self.state_size + config.key_size, bias=False)
        self.log_rate = nn.Parameter(torch.empty(channels, self.state_size))
        self.read_map = nn.Parameter(torch.empty(config.key_size, self.state_size)) if state_sizes else None
        self.D = nn.Parameter(torch.empty(channels)) if self.feedthrough else None
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b, and of D."""
        D = {} if self.D is None else {"D": torch.ones_like(self.D)}
        return selective_initial_values(self.config, *self.log_rate.shape) | D

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every channel at one input, of batch shape (sequence, channel)."""
        return self.operator_and_values(hidden)[0]

    def operator_and_values(self, hidden: Tensor) -> tuple[Recurrence, Tensor]:
        """`operator` and `values` of one input, in one go."""
        inputs = self._inputs(hidden)
        steps, B, C = self._selected(inputs)
        steps = steps.transpose(1, 2).unsqueeze(-1)
        D = None if self.D is None else self.D[None, :, None]
        operator = Recurrence((steps * self._rates()[:, None]).exp(), steps * B[:, None], C[:, None], D)
        return operator, inputs.transpose(1, 2).unsqueeze(-1)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, (S, d, L, 1)."""
        inputs = self._inputs(hidden)
        steps, B, C = self._selected(inputs)
        mixed = self._fed_through(selective_scan(inputs, steps, self._rates(), B, C), inputs)
        return mixed.transpose(1, 2).unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved and activated channels, (S, d, L, 1)."""
        return self._inputs(hidden).transpose(1, 2).unsqueeze(-1)

    def initial_cache(self, batch: int) -> StateCache:
        """The cache of `step` before the first token."""
        convolution = self._initial_convolution(batch)
        return StateCache(convolution, convolution.new_zeros(batch, *self.log_rate.shape))

    def step(self, hidden: Tensor, cache: StateCache) -> tuple[Tensor, StateCache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (inputs,), convolution = self._step_convolved(hidden, cache.convolution)
        steps, B, C = self._selected(inputs)
        decay = (steps.unsqueeze(-1) * self._rates()).exp()
        state = decay * cache.state + (steps * inputs).unsqueeze(-1) * B.unsqueeze(-2)
        mixed = self._fed_through((state @ C.unsqueeze(-1)).squeeze(-1), inputs)
        return self._emit(mixed, hidden), StateCache(convolution, state)

    def _inputs(self, hidden: Tensor) -> Tensor:
        return self._convolved(hidden)[0]

    def _selected(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Δ (..., d), B (..., n) and C (..., n) of inputs (..., d)."""
        B, C = self.state_projection(inputs).split([self.state_size, self.key_size], dim=-1)
        C = C if self.read_map is None else C @ self.read_map
        step_inputs = inputs if self.step_input is None else self.step_input(inputs)
        return functional.softplus(self.step_projection(step_inputs)), B, C

    def _fed_through(self, mixed: Tensor, inputs: Tensor) -> Tensor:
        return mixed if self.D is None else mixed + self.D * inputs

    def _rates(self) -> Tensor:
        return -self.log_rate.exp()
