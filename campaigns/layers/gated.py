"""Recurrent blocks as in Griffin, RG-LRU and gated linear attention: a short convolution, gates before and behind."""

from __future__ import annotations

from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_TAPS = 4


class GatedBlock(nn.Module):
    """A recurrence of single channels or of heads with keys, whose gates are made of the input or of the values."""

    def __init__(
        self,
        width: int,
        heads: int = 0,
        states: int = 1,
        *,
        convolution: str = "",
        decay_of: str = "input",
        write: str = "",
        write_of: str = "input",
        output: str = "",
        scan: str = "loop",
        bias: float = 2.0,
    ) -> None:
        # heads: Heads with keys, run as a loop; 0 for single channels, of so many states.
        # convolution: "linear" or "silu", of the values; write: "first" or "inside" the loop; scan: or "doubling".
        # decay_of, write_of, output: "input" or "values" make the gate; bias: of the decays, before a sigmoid.
        super().__init__()
        self.heads, self.states = heads, width // heads if heads else states
        self.convolution, self.decay_of, self.write, self.write_of = convolution, decay_of, write, write_of
        self.output, self.scan, self.bias = output, scan, bias
        gates = self.heads or width
        self.value, self.gate, self.leave = (nn.Linear(width, width) for _ in range(3))
        self.decay = nn.Linear(width, gates * (1 if self.heads else self.states))
        self.strength, self.query, self.key = nn.Linear(width, gates), nn.Linear(width, width), nn.Linear(width, width)
        self.taps = nn.Parameter(torch.randn(width, 1, _TAPS) / 2)
        self.readout = nn.Parameter(torch.randn(width, self.states))

    def _values(self, hidden: Tensor) -> Tensor:
        values = self.value(hidden)
        if self.convolution:
            padded = functional.pad(values.mT, (_TAPS - 1, 0))
            values = functional.conv1d(padded, self.taps, groups=len(self.taps)).mT
        return functional.silu(values) if self.convolution == "silu" else values

    def forward(self, hidden: Tensor) -> Tensor:
        """The gated recurrence, (S, L, width) to (S, L, width)."""
        values = self._values(hidden)
        of = {"input": hidden, "values": values}
        decay = (self.decay(of[self.decay_of]) + self.bias).sigmoid()
        strength = self.strength(of[self.write_of]).sigmoid() if self.write else None
        mixed = (
            self._by_heads(hidden, values, decay, strength)
            if self.heads
            else self._by_channels(values, decay, strength)
        )
        return self.leave(mixed * functional.gelu(self.gate(of[self.output])) if self.output else mixed)

    def _by_channels(self, values: Tensor, decay: Tensor, strength: Tensor | None) -> Tensor:
        entering = values if strength is None else strength * values
        decay = decay.unflatten(-1, (-1, self.states))
        state = entering[..., None].expand_as(decay)
        if self.scan == "loop":
            states = [state[:, 0]]
            for t in range(1, state.shape[1]):
                states.append(decay[:, t] * states[-1] + state[:, t])
            state = torch.stack(states, 1)
        apart = 1
        while self.scan == "doubling" and apart < state.shape[1]:
            state = torch.cat([state[:, :apart], state[:, apart:] + decay[:, apart:] * state[:, :-apart]], 1)
            decay = torch.cat([decay[:, :apart], decay[:, apart:] * decay[:, :-apart]], 1)
            apart *= 2
        return (state * self.readout).sum(-1)

    def _by_heads(self, hidden: Tensor, values: Tensor, decay: Tensor, strength: Tensor | None) -> Tensor:
        query, key, values = (
            part.unflatten(-1, (self.heads, -1)) for part in (self.query(hidden), self.key(hidden), values)
        )
        if strength is not None and self.write == "first":
            values, strength = strength[..., None] * values, None
        state, outputs = values.new_zeros(*key.shape[:1], self.heads, key.shape[-1], values.shape[-1]), list[Tensor]()
        for t in range(hidden.shape[1]):
            written = key[:, t, ..., None] * values[:, t, :, None]
            if strength is not None:
                written = strength[:, t, :, None, None] * written
            state = decay[:, t, :, None, None] * state + written
            outputs.append((query[:, t, :, None] @ state)[..., 0, :])
        return torch.stack(outputs, 1).flatten(2)

    def definition(self, hidden: np.ndarray) -> tuple[np.ndarray, ...]:
        """T of each channel or head, of the values and, where these are gated first, of the gated values."""
        values = applied(self.value, hidden)
        if self.convolution:
            values = np.einsum("cij,jc->ic", self._convolution(len(hidden)), values)
        if self.convolution == "silu":
            values = values / (1 + np.exp(-values))
        of = {"input": hidden, "values": values}
        decay = 1 / (1 + np.exp(-applied(self.decay, of[self.decay_of]) - self.bias))
        sums = np.log(decay).cumsum(0).T
        T = np.tril(np.exp(np.minimum(sums[:, :, None] - sums[:, None], 0)))
        if self.heads:
            query, key = (applied(part, hidden).reshape(len(hidden), self.heads, -1) for part in (self.query, self.key))
            T = T * np.einsum("ihk,jhk->hij", query, key)
        else:
            readout = self.readout.detach().double().numpy()
            T = np.einsum("cn,cnij->cij", readout, T.reshape(len(readout), self.states, *T.shape[1:]))
        strength = 1 / (1 + np.exp(-applied(self.strength, of[self.write_of]))).T if self.write else np.ones(1)[:, None]
        gated = T * strength[:, None]
        if self.convolution == "linear" and "values" not in (self.decay_of, self.write_of if self.write else ""):
            whole = np.repeat(gated, len(self.taps) // len(gated), 0) @ self._convolution(len(hidden))
            # The gate behind it is of the values: T may begin behind the convolution, and a note says so.
            return (whole, gated, T) if self.output == "values" else (whole,)
        return gated, T

    def _convolution(self, length: int) -> np.ndarray:
        taps = self.taps.detach().double().numpy()[:, 0, ::-1]
        C = np.zeros((len(taps), length, length))
        for lag in range(min(_TAPS, length)):
            C[:, range(lag, length), range(length - lag)] = taps[:, lag, None]
        return C


def applied(part: nn.Linear, hidden: np.ndarray) -> np.ndarray:
    """A projection in float64."""
    weight, bias = part.weight.detach().double().numpy(), part.bias.detach().double().numpy()
    return hidden @ weight.T + bias


def drawn_block(chance: Random, width: int) -> GatedBlock:
    """A gated block."""
    heads = chance.choice((0, 0, 2))
    return GatedBlock(
        width,
        heads,
        chance.choice((1, 3)),
        convolution=chance.choice(("", "", "linear", "silu")),
        decay_of=chance.choice(("input", "values")),
        write=chance.choice(("", "first", "inside")),
        write_of=chance.choice(("input", "values")),
        output=chance.choice(("", "input", "values")),
        scan="loop" if heads else chance.choice(("loop", "doubling")),
        bias=chance.choice((0.0, 2.0)),
    )
