"""T of attention as a map of all its entries, where queries and keys alone do not say it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from statesize.adapters.kernels.plain_attention import AttentionCall
from statesize.adapters.models.precision import check_finite
from statesize.adapters.observation import Observation, Units
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Dense


@dataclass(eq=False)
class Mixing:
    """T of all heads of one call of attention, made on its first use."""

    made: Callable[[], Tensor]  # makes it, (S, H, L, L)
    shape: tuple[int, int, int, int]  # (S, H, L, keys)
    _found: Tensor | None = field(default=None, init=False)

    @torch.no_grad()
    def of(self, name: str) -> Tensor:
        """T, (S, H, L, L), made once."""
        if self._found is None:
            found = self.made()
            check_finite(name, "head", "its attention map has", found)
            # Head by head: a copy of all maps would double what the layer holds.
            if any(bool(head.triu(1).any()) for head in found.flatten(0, 1)):
                raise ModelError(_later_positions(name))
            self._found = found
        return self._found

    def forget(self) -> None:
        """Drop T; it is made again on its next use."""
        self._found = None


def of_identity(answers: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """T, (…, L, L), by what a function of values (…, L, P) makes of the identity."""
    identity = torch.eye(values.shape[-2], dtype=values.dtype, device=values.device)
    return answers(identity.expand(*values.shape[:-1], -1))


def observed_mixing(call: AttentionCall, mixing: Mixing, text: int, seen: Tensor | None = None) -> Observation:
    """The Observation of one call of attention over a text of so many positions."""
    # seen: Which positions (columns) a query may see, (L, L) boolean; None takes those that any head gives weight.
    name, (_, _, length, entries) = call.name, mixing.shape
    if entries != length:
        raise ModelError(
            f"Mixer {name} attends from {length} to {entries} entries, of a text of {text} tokens. statesize measures "
            "mixers whose inputs and outputs are the same positions of one text."
        )
    reads = (mixing.of(name) > 0).flatten(0, 1) if seen is None else seen[None]
    seen = reads.any(0)
    if bool(seen.triu(1).any()):
        raise ModelError(_later_positions(name))
    if call.window is not None and bool(seen.tril(-call.window).any()):
        # What the layer calls its window hides nothing here.
        call = replace(call, window=None)
    window = call.window
    state_size = _state_size(seen, window)
    position = torch.arange(length, device=state_size.device)
    filled = None if window is None else window - 1
    if window is None and not torch.equal(state_size, position):
        # A cache that does not keep the whole past without being a window: attention in chunks.
        filled = int(state_size.max())
    stated = call.stated_size(lambda: max(int(_read_later(head).max()) for head in reads))
    if stated is not None:
        filled, state_size = stated, position.clamp(max=stated)

    def operator(units: Units) -> Dense:
        return Dense.of_causal(mixing.of(name)[:, units], state_size)

    found = call.observation(operator, filled)
    return replace(found, map_bytes=math.prod(mixing.shape) * torch.float64.itemsize, forget=mixing.forget)


def _later_positions(name: str) -> Note:
    """Why attention that is not causal is refused."""
    return Note(Code.LATER_POSITIONS, f"Mixer {name} {Code.LATER_POSITIONS.sentence}")


def visible_keys(mask: Tensor | None, length: int, keys: int) -> Tensor:
    """Which keys a query sees in any head of any sequence, (L, keys), by what is added to scores, or by a boolean."""
    # 0 where a key is seen, a dtype's least number where not, and between the two a bias such as ALiBi's.
    if mask is None:
        return torch.ones(length, keys, dtype=torch.bool)
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(torch.float16).min / 2
    return seen.reshape(-1, *seen.shape[-2:]).any(0).expand(length, -1)[:, :keys]


def _state_size(seen: Tensor, window: int | None) -> Tensor:
    """How many earlier positions a cache must keep for the queries from i on, (L,)."""
    position = torch.arange(len(seen), device=seen.device)
    if not _is_structural(seen):
        # A selection by content, as of an indexer or of a dynamic mask, may pick any position: its cache keeps all.
        return position if window is None else position.clamp(max=window - 1)
    return _read_later(seen)


def _read_later(seen: Tensor) -> Tensor:
    """How many earlier positions are seen from i on, (L,): those j < i that a query at i or behind it sees."""
    position = torch.arange(len(seen), device=seen.device)
    return ((position < position[:, None]) & (position[:, None] <= _last_reader(seen))).sum(-1)


def _last_reader(seen: Tensor) -> Tensor:
    """The last position that sees each one, (L,); -1 where none does."""
    position = torch.arange(len(seen), device=seen.device)
    return torch.where(seen, position[:, None], -1).amax(0)


def _is_structural(seen: Tensor) -> bool:
    """Whether a mask is one of positions alone: bands, one behind the other, as of chunks or of texts in a row."""
    position = torch.arange(len(seen), device=seen.device)
    ends = cast("list[int]", (position[_last_reader(seen).cummax(0).values <= position] + 1).tolist())
    return all(_is_band(seen[first:end, first:end]) for first, end in pairwise([0, *ends]))


def _is_band(seen: Tensor) -> bool:
    """Whether a mask is a band, with or without first positions that all see."""
    # All diagonals are of one kind, but for the columns of the first positions.
    uneven = (seen[1:, 1:] != seen[:-1, :-1]).any(0).nonzero().flatten()
    first = int(uneven[-1]) + 1 if len(uneven) else 0
    return torch.equal(seen[:, :first], torch.ones_like(seen).tril()[:, :first])
