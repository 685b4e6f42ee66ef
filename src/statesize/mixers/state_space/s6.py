"""S6, the selective state-space model of Mamba: each channel has a diagonal recurrence that depends on the input."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.mixers.config import ModelConfig
from statesize.mixers.decays import selective_initial_values
from statesize.mixers.mixer import Mixer
from statesize.mixers.state_space.selective_scan import selective_scan
from statesize.operators import Recurrence


class S6Cache(NamedTuple):
    """What `S6.step` keeps: convolution inputs and the state (S, d, n)."""

    convolution: Tensor
    state: Tensor


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

    def __init__(self, config: ModelConfig, state_sizes: tuple[int, ...] = ()) -> None:
        super().__init__(config, [config.width])
        self.state_size = max(state_sizes, default=config.key_size)
        self.step_projection = nn.Linear(config.width, config.width)
        self.state_projection = nn.Linear(config.width, self.state_size + config.key_size, bias=False)
        self.log_rate = nn.Parameter(torch.empty(config.width, self.state_size))
        self.read_map = nn.Parameter(torch.empty(config.key_size, self.state_size)) if state_sizes else None
        self.set_initial_values()

    def initial_values(self) -> dict[str, Tensor]:
        """First values of A and b."""
        return selective_initial_values(self.config, *self.log_rate.shape)

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every channel at one input, of batch shape (sequence, channel)."""
        return self.operator_and_values(hidden)[0]

    def operator_and_values(self, hidden: Tensor) -> tuple[Recurrence, Tensor]:
        """`operator` and `values` of one input, in one go."""
        inputs = self._inputs(hidden)
        steps, B, C = self._selected(inputs)
        steps = steps.transpose(1, 2).unsqueeze(-1)
        operator = Recurrence((steps * self._rates()[:, None]).exp(), steps * B[:, None], C[:, None])
        return operator, inputs.transpose(1, 2).unsqueeze(-1)

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, (S, d, L, 1)."""
        inputs = self._inputs(hidden)
        steps, B, C = self._selected(inputs)
        mixed = selective_scan(inputs, steps, self._rates(), B, C)
        return mixed.transpose(1, 2).unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved and activated channels, (S, d, L, 1)."""
        return self._inputs(hidden).transpose(1, 2).unsqueeze(-1)

    def initial_cache(self, batch: int) -> S6Cache:
        """The cache of `step` before the first token."""
        convolution = self._initial_convolution(batch)
        return S6Cache(convolution, convolution.new_zeros(batch, *self.log_rate.shape))

    def step(self, hidden: Tensor, cache: S6Cache) -> tuple[Tensor, S6Cache]:
        """One token of every sequence, (S, d), and the next cache; equals `forward` on the whole sequence."""
        (inputs,), convolution = self._step_convolved(hidden, cache.convolution)
        steps, B, C = self._selected(inputs)
        decay = (steps.unsqueeze(-1) * self._rates()).exp()
        state = decay * cache.state + (steps * inputs).unsqueeze(-1) * B.unsqueeze(-2)
        mixed = (state @ C.unsqueeze(-1)).squeeze(-1)
        return self._emit(mixed, hidden), S6Cache(convolution, state)

    def _inputs(self, hidden: Tensor) -> Tensor:
        return self._convolved(hidden)[0]

    def _selected(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Δ (..., d), B (..., n) and C (..., n) of inputs (..., d)."""
        B, C = self.state_projection(inputs).split([self.state_size, self.key_size], dim=-1)
        C = C if self.read_map is None else C @ self.read_map
        return functional.softplus(self.step_projection(inputs)), B, C

    def _rates(self) -> Tensor:
        return -self.log_rate.exp()
