"""Attention by queries and keys alone: T is made in tiles where an engine asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from statesize.adapters.models.own_cache import attention_cache
from statesize.adapters.models.precision import allowed, relative_difference
from statesize.adapters.observation import EXACT, Observation
from statesize.adapters.select import is_own_code
from statesize.adapters.watch import Memory, named_state_size
from statesize.codes import Code, Note
from statesize.operators import SoftmaxAttention

# Rows of T by which queries and keys are compared with the model's own output, before they are compared in all.
_ROWS = 64
# Entries of these rows that are made at once, of some heads.
_SCORES = 2**21
UNSEEN = torch.finfo(torch.float16).min / 2
"""What is added to scores that must not count is at most this."""


_CONVOLVED = "Its values are convolved over a few tokens before they are mixed; T is without that convolution."
# What a mixer does to its values, or to other streams, beside mixing its values by T.
_TEXTS = {
    "InklingAttention": _CONVOLVED,
    "Inkling2SlidingAttention": _CONVOLVED,
    "Inkling2FullAttention": _CONVOLVED,
    "ZayaAttention": "Half of each value is that of the token before; T is without that delay.",
    "DeepseekV4Attention": "Its values are rotated by position before they are mixed, and back after; T is between.",
    "ProphetNetNgramSelfAttention": "T is that of its main stream; its n-gram streams attend to more than the text.",
}
NOTES = {kind: (Note(Code.VALUES, text),) for kind, text in _TEXTS.items()}


@dataclass(frozen=True, eq=False)
class PlainAttention:
    """T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys of a window, which T u has yet to confirm."""

    attention: SoftmaxAttention  # T of all heads, whose numbers `_tolerated` checks
    key: Tensor  # (S, K, L, d), each for H / K consecutive heads
    window: int | None  # as the layer states it, which may be longer than the text

    @classmethod
    def of(
        cls,
        query: Tensor,
        key: Tensor,
        scale: float,
        window: int | None,
        *,
        key_bias: Tensor | None = None,
        sink: Tensor | None = None,
        soft_cap: float | None = None,
    ) -> Self:
        """That of queries (S, H, L, d) and keys, a bias (S or 1, H or 1, L) and a sink (H,)."""
        count = query.shape[1]
        heads = torch.arange(count, device=query.device)
        attention = SoftmaxAttention(
            query[:, heads],
            key[:, heads // (count // key.shape[1])],
            scale,
            window,
            key_bias=None if key_bias is None else key_bias.expand(-1, count, -1),
            sink=None if sink is None else sink[None],
            soft_cap=soft_cap,
            checked=True,
        )
        return cls(attention, key, window)

    def largest_score(self) -> float:
        """The largest absolute score of a key that is seen, before bias and cap, and the largest bias."""
        attention, found = self.attention, 0.0
        for head in range(attention.batch_shape[1]):
            products = attention.query[:, head] @ attention.key[:, head].mT
            seen = products.tril().triu(1 - (self.window or attention.length))
            found = max(found, abs(attention.scale) * float(seen.abs().max()))
        return found + (0.0 if attention.key_bias is None else float(attention.key_bias.abs().max()))

    def explained(self, values: Tensor, mixed: Tensor, *, exact: bool) -> float | None:
        """How far T u, u (S, K, L, P), is from y (S, H, L, P), or None where that is more than rounding."""
        # In float64 this is the check of T, of every row and head. In other precisions it only chooses.
        (_, heads), length, device = self.attention.batch_shape, self.attention.length, self.attention.device
        rows = torch.linspace(0, length - 1, min(length, _ROWS)).long().to(device)
        stored = torch.arange(heads, device=device) // (heads // values.shape[1])
        step = 1 if exact else max(1, _SCORES // (len(rows) * length))
        some = [slice(first, first + step) for first in range(0, heads, step)]
        parts = (
            (self.attention[:, one], values[:, stored[one]].to(self.attention.dtype), mixed[:, one]) for one in some
        )
        if exact:
            return self._tolerated((relative_difference(T.apply(u), y) for T, u, y in parts), exact=True)
        differences = (
            relative_difference(read, left)
            for T, u, y in parts
            for read, left in zip((T.rows(rows) @ u).unbind(1), y[:, :, rows].unbind(1), strict=True)
        )
        return self._tolerated(differences, exact=False)

    def observation(
        self, name: str, values: Tensor, mixed: Tensor, module: nn.Module, difference: float
    ) -> Observation:
        """A call that it explains up to a difference, as observed; values u (S, K, L, P), mixed y (S, H, L, P)."""
        heads, length = self.attention.batch_shape[1], self.attention.length
        kind = "attention" if self.window is None else "sliding attention"
        kind, memory = said_of_itself(name, module, kind, lambda: min(self.window or length, length) - 1, length)
        state_size = None if self.window is None else self.window - 1
        state_size = state_size if memory.states is None else memory.states
        stored = attention_cache(module, (self.key,), values, length, state_size, heads)
        return Observation(
            name=name,
            kind=kind,
            operator=lambda units: self.attention[:, units],
            values=values[:, :, None].expand(-1, -1, heads // values.shape[1], -1, -1).flatten(1, 2),
            mixed=mixed,
            state_size=state_size,
            state_bytes=stored.bytes,
            notes=(*NOTES.get(type(module).__name__, ()), *memory.notes, *stored.notes),
            groups=stored.groups,
            order=stored.order,
            stored_channels=stored.channels,
            stored=values,
            keys=self.key,
            key_bytes=stored.key_bytes,
            difference=difference,
            largest_score=self.largest_score,
            attends=True,
        )

    def explained_maps(self, maps: Tensor, *, exact: bool) -> float | None:
        """The largest difference of T from a map (S, H, L, L), in all of it, or None beyond rounding."""
        heads = [slice(head, head + 1) for head in range(maps.shape[1])]
        differences = ((self.attention[:, head].dense() - maps[:, head]).abs().max() for head in heads)
        return self._tolerated(differences, exact=exact)

    def _tolerated(self, differences: Iterable[Tensor | float], *, exact: bool) -> float | None:
        """The largest of some differences, which are made here; None where it is more than rounding."""
        attention, bias = self.attention, self.attention.key_bias
        parts = (attention.query, self.key, bias, attention.sink)
        if not all(bool(torch.isfinite(part).all()) for part in parts if part is not None):
            return None
        if bias is not None and bool((bias.abs() > -UNSEEN).any()):
            # It hides keys.
            return None
        # T is computed here as where it is measured; modes of a run would look at each of its operations.
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            found = float(torch.tensor([float(one) for one in differences], dtype=torch.float64).max())
        limit = EXACT if exact else allowed(found, attention.dtype, self.largest_score)
        return found if found <= limit else None


def said_of_itself(
    name: str, module: nn.Module, kind: str, count: Callable[[], int], length: int
) -> tuple[str, Memory]:
    """The kind that attention of one's own gives itself, and its memory, of which T keeps so many tokens at most."""
    if not is_own_code(module):
        return kind, Memory(None)
    kind, said = str(getattr(module, "kind", kind)), named_state_size(name, module)
    if not isinstance(said, int):
        return kind, Memory(None)
    kept = count()
    return kind, Memory.named(said, kept, is_short=kept == length - 1, fixed=lambda: kept)


def is_band(mask: object, length: int, window: int | None) -> bool:
    """Whether a mask of scores (…, L, L) lets every query see the keys of the window up to itself, and does no more."""
    if mask is None:
        return True
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[-2:] != (length, length):
        return False
    seen = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    seen = seen if window is None else seen.triu(1 - window)
    if mask.dtype == torch.bool:
        return bool((mask == seen).all())
    return bool(((mask == 0) == seen).all()) and not bool((mask[~seen.expand_as(mask)] > UNSEEN).any())


def relative_to_last(rows: Tensor) -> Tensor:
    """Scores (…, L) less that of the last key, as softmax does not see what a row has in common."""
    return rows - rows[..., -1:]
