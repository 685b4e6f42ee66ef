"""S6, the selective state-space model of Mamba, and its scan."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from statesize.lab.mixers.base import State, SteppedMixer
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.starts import selective_log_rates, step_projection
from statesize.operators import Recurrence


@mixer("s6")
class S6(SteppedMixer):
    """T from x_t = exp(Δ_t A) x_{t−1} + Δ_t B_t u_t, y_t = C_t x_t, for each channel; n = key_size states.

    u = silu of what the short convolution gives. Δ = softplus(W u + b) has one value per channel, B and C = W u are
    shared by the channels. A and b are learned; A starts at −1 … −n, or at −1/n … −n/n if `config.normalised`. There is
    no feed-through D u: the residual stream around the mixer is one.

    Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023. Differs from the paper:
    expansion 1; no silu gate; Δ by a full matrix; no D; norm per head.

    Args:
        config: Shape of the model; `normalised`, `smallest_step` and `largest_step` are where A and b start.
    """

    kept = ("step_projection.bias", "log_rate")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, [config.width], activated=True)
        self.step_projection = step_projection(config, config.width)
        self.state_projection = nn.Linear(config.width, 2 * config.key_size, bias=False)
        self.log_rate = selective_log_rates(config, config.width)

    def operator(self, hidden: Tensor) -> Recurrence:
        """T of every channel at one input, of batch shape (sequence, channel)."""
        steps, B, C = self._selected(self._inputs(hidden))
        steps = steps.transpose(1, 2).unsqueeze(-1)
        return Recurrence((steps * self._rates()[:, None]).exp(), steps * B[:, None], C[:, None])

    def mixed_values(self, hidden: Tensor) -> Tensor:
        """The values of each channel after mixing, before the norm, (S, d, L, 1)."""
        inputs = self._inputs(hidden)
        steps, B, C = self._selected(inputs)
        return selective_scan(inputs, steps, self._rates(), B, C).transpose(1, 2).unsqueeze(-1)

    def values(self, hidden: Tensor) -> Tensor:
        """The inputs of T: the convolved and activated channels, (S, d, L, 1)."""
        return self._inputs(hidden).transpose(1, 2).unsqueeze(-1)

    def initial_state(self, batch: int) -> State:
        """Zeros, (S, d, n)."""
        return (self.projection.weight.new_zeros(batch, *self.log_rate.shape),)

    def advance(self, parts: tuple[Tensor, ...], hidden: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (S, d), and the next state."""
        (inputs,) = parts
        steps, B, C = self._selected(inputs)
        decay = (steps.unsqueeze(-1) * self._rates()).exp()
        held = decay * state[0] + (steps * inputs).unsqueeze(-1) * B.unsqueeze(-2)
        return (held @ C.unsqueeze(-1)).squeeze(-1), (held,)

    def _inputs(self, hidden: Tensor) -> Tensor:
        return self.parts(hidden)[0]

    def _selected(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Δ (..., d), B (..., n) and C (..., n) of inputs (..., d)."""
        B, C = self.state_projection(inputs).split([self.key_size, self.key_size], dim=-1)
        return functional.softplus(self.step_projection(inputs)), B, C

    def _rates(self) -> Tensor:
        return -self.log_rate.exp()


_BLOCK_NUMBERS = 2**18
"""Numbers of state that are held at once: few enough for a core's cache, enough for whole operations to pay."""


def selective_scan(inputs: Tensor, steps: Tensor, rates: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y_t = C_t x_t, x_t = exp(Δ_t A) x_{t−1} + Δ_t B_t u_t: u, Δ, y (S, L, d); B, C (S, L, n); A (d, n), diagonal."""
    # The states are computed one position after another, so that no decay is too strong, in blocks of positions of
    # which only the first state is kept; the gradient computes the others again. The gradient has no gradient of its
    # own. Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2.
    # With positions first the states of one position are contiguous.
    position_first = [tensor.transpose(0, 1).contiguous() for tensor in (inputs, steps, B, C)]
    outputs = cast("Tensor", _Scan.apply(*position_first, rates.T.contiguous()))
    return outputs.transpose(0, 1)


class _Scan(torch.autograd.Function):
    """`selective_scan` of (L, S, ·) tensors and rates (n, d)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, steps: Tensor, B: Tensor, C: Tensor, rates: Tensor) -> Tensor:
        length, batch = inputs.shape[:2]
        size = min(length, max(1, _BLOCK_NUMBERS // (batch * rates.numel())))
        room = inputs.new_empty(2, size, batch, *rates.shape)
        state = inputs.new_zeros(batch, *rates.shape)
        starts: list[Tensor] = []
        outputs = torch.empty_like(inputs)
        for first in range(0, length, size):
            block = slice(first, first + size)
            starts.append(state)
            _, states = _states(state, inputs[block], steps[block], B[block], rates, room)
            outputs[block] = (C[block].unsqueeze(-2) @ states).squeeze(-2)
            state = states[-1].clone()
        ctx.save_for_backward(inputs, steps, B, C, rates, *starts)
        ctx.size = size
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *sequences, rates = ctx.saved_tensors[:5]
        starts = ctx.saved_tensors[5:]
        grads = [torch.empty_like(tensor) for tensor in sequences]
        rates_grad = torch.zeros_like(rates)
        room = grad.new_empty(4, ctx.size, *starts[0].shape)
        carried = torch.zeros_like(starts[0])
        for number in reversed(range(len(starts))):
            block = slice(number * ctx.size, (number + 1) * ctx.size)
            parts = [tensor[block] for tensor in sequences]
            block_gradients, added, carried = _gradients(starts[number], carried, grad[block], parts, rates, room)
            rates_grad += added
            for whole, part in zip(grads, block_gradients, strict=True):
                whole[block] = part
        return (*grads, rates_grad)


def _states(
    start: Tensor, inputs: Tensor, steps: Tensor, B: Tensor, rates: Tensor, room: Tensor
) -> tuple[Tensor, Tensor]:
    """Decays exp(Δ_t A) and states x_t of a block of positions, both (b, S, n, d), written to `room`."""
    decays, states = room[:2, : len(inputs)]
    torch.mul(steps.unsqueeze(-2), rates, out=decays).exp_()
    torch.mul(B.unsqueeze(-1), (steps * inputs).unsqueeze(-2), out=states)
    before = start
    for decay, state in zip(decays.unbind(), states.unbind(), strict=True):
        before = state.addcmul_(decay, before)
    return decays, states


def _gradients(
    start: Tensor, carried: Tensor, grad: Tensor, parts: list[Tensor], rates: Tensor, room: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Gradients of a block of positions: of inputs, steps, B and C; of the rates; of the state before the block."""
    inputs, steps, B, C = parts
    decays, states = _states(start, inputs, steps, B, rates, room)
    states_grad, product = room[2:, : len(inputs)]
    C_grad = torch.mul(states, grad.unsqueeze(-2), out=product).sum(-1)
    torch.mul(C.unsqueeze(-1), grad.unsqueeze(-2), out=states_grad)
    states_grad[-1] += carried
    later = list(zip(decays.unbind(), states_grad.unbind(), strict=True))
    for (decay, after), (_, state_grad) in zip(later[:0:-1], later[-2::-1], strict=True):
        state_grad.addcmul_(decay, after)
    carried = decays[0] * states_grad[0]
    weighted_grad = (B.unsqueeze(-2) @ states_grad).squeeze(-2)
    B_grad = torch.mul(states_grad, (steps * inputs).unsqueeze(-2), out=product).sum(-1)
    # d x_t / d(Δ_t A) = exp(Δ_t A) x_{t−1}; the decays make room for it.
    decays[0] *= start
    decays[1:] *= states[:-1]
    decays *= states_grad
    steps_grad = torch.mul(decays, rates, out=product).sum(-2).addcmul_(weighted_grad, inputs)
    rates_grad = torch.mul(decays, steps.unsqueeze(-2), out=product).sum((0, 1))
    return (weighted_grad * steps, steps_grad, B_grad, C_grad), rates_grad, carried
