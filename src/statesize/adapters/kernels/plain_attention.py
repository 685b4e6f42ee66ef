"""One call of attention, and T by queries and keys alone, made in tiles where an engine asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from statesize.adapters.models.own_cache import attention_cache
from statesize.adapters.models.precision import allowed, relative_difference
from statesize.adapters.observation import EXACT, Observation, Units
from statesize.adapters.select import is_own_code
from statesize.adapters.watch import named_state_size
from statesize.codes import Code, Note
from statesize.operators import Operator, SoftmaxAttention

UNSEEN = torch.finfo(torch.float16).min / 2
"""The largest number that a mask adds to a score that must not count."""

# Classes whose values are convolved, delayed or rotated before they are mixed, or whose further streams T lacks.
_BESIDE_T = (
    *("InklingAttention", "Inkling2SlidingAttention", "Inkling2FullAttention", "ZayaAttention"),
    *("DeepseekV4Attention", "ProphetNetNgramSelfAttention"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionCall:
    """One call of attention by a module."""

    name: str  # the module's name
    module: nn.Module  # the module
    values: Tensor  # u, (S, K, L, P); each of the K key-value heads serves H / K consecutive heads
    mixed: Tensor  # y, (S, H, L, P)
    keys: Sequence[Tensor] = ()  # what may be its keys, (S, K, L, d), of which its cache's bytes follow
    window: int | None = None  # positions that a query sees at most, itself included, as the layer states it
    kind: str = "attention"  # what a mixer with such attention is called
    # Other values, as `values`, and what the layer's own code makes of them, as `mixed`; None where it is not asked.
    probed: Callable[[], tuple[Tensor, Tensor]] | None = None
    largest_score: Callable[[], float] = float  # the largest absolute score

    def by_head(self, part: Tensor) -> Tensor:
        """What key-value heads hold, (S, K, L, P), by head, (S, H, L, P)."""
        return part[:, :, None].expand(-1, -1, self.mixed.shape[1] // part.shape[1], -1, -1).flatten(1, 2)

    def stated_size(self, kept: Callable[[], int]) -> int | None:
        """The tokens that a class of one's own says it keeps, where T keeps no more; None without a word."""
        said = named_state_size(self.name, self.module) if is_own_code(self.module) else None
        return said if isinstance(said, int) and kept() <= said else None

    def observation(self, operator: Callable[[Units], Operator], filled: int | None) -> Observation:
        """What was observed, whose cache keeps so many tokens once it has filled, or all for None."""
        stored = attention_cache(self.module, self.keys, self.values, self.mixed.shape[1], filled)
        kind, probed = self.kind if self.window is None else f"sliding {self.kind}", self.probed
        beside = [Note(Code.VALUES)] if type(self.module).__name__ in _BESIDE_T else []
        kind = str(getattr(self.module, "kind", kind)) if is_own_code(self.module) else kind
        return Observation(
            self.name,
            kind,
            operator,
            self.by_head(self.values),
            self.mixed,
            state_size=filled,
            stored=self.values,
            keys=next(iter(self.keys), None),
            probed=None if probed is None else lambda: (self.by_head(probed()[0]), probed()[1]),
            largest_score=self.largest_score,
            attends="attention" in self.kind,
            **stored._replace(notes=(*beside, *stored.notes))._asdict(),
        )


@dataclass(frozen=True, eq=False)
class PlainAttention:
    """T[i, j] = softmax_j(scale · q_iᵀ k_j) over the keys of a window, which T u has yet to confirm."""

    attention: SoftmaxAttention  # T of all heads, whose numbers `explained` checks
    key: Tensor  # (S, K, L, d), each for H / K consecutive heads
    window: int | None  # as the layer states it, which may be longer than the text

    @classmethod
    def of(cls, query: Tensor, key: Tensor, scale: float, window: int | None, **beside: Any) -> Self:
        """That of queries (S, H, L, d) and keys (S, K, L, d), with a sink or a cap of `SoftmaxAttention`."""
        heads = torch.arange(query.shape[1], device=query.device)
        # By index, so that what the model goes on to change in place is another tensor.
        query, by_head = query[:, heads], key[:, heads // (len(heads) // key.shape[1])]
        return cls(SoftmaxAttention(query, by_head, scale, window, **beside, checked=True), key, window)

    def largest_score(self) -> float:
        """The largest absolute score of a key that is seen, before a cap."""
        attention, found = self.attention, 0.0
        for head in range(attention.batch_shape[1]):
            products = attention.query[:, head] @ attention.key[:, head].mT
            seen = products.tril().triu(1 - (self.window or attention.length))
            found = max(found, abs(attention.scale) * float(seen.abs().max()))
        return found

    def explained(self, values: Tensor, mixed: Tensor, *, exact: bool) -> float | None:
        """How far T u, u (S, K, L, P), is from y (S, H, L, P), or None where that is more than rounding."""
        # In float64 this is the check of T. In other precisions it only chooses.
        each = self.attention.batch_shape[1] // values.shape[1]
        heads = (slice(head, head + 1) for head in range(self.attention.batch_shape[1]))
        pairs = ((self.attention[:, head], values[:, head.start // each, None], mixed[:, head]) for head in heads)
        parts = (self.attention.query, self.key, self.attention.sink)
        if not all(bool(torch.isfinite(part).all()) for part in parts if part is not None):
            return None
        applied = ((T.apply(u.to(self.attention.dtype)), y) for T, u, y in pairs)
        found = float(torch.tensor([relative_difference(*pair) for pair in applied], dtype=torch.float64).max())
        limit = EXACT if exact else allowed(found, self.attention.dtype, self.largest_score)
        return found if found <= limit else None

    def observation(self, call: AttentionCall) -> Observation:
        """A call that it explains, as observed."""
        length, filled = self.attention.length, None if self.window is None else self.window - 1
        stated = call.stated_size(lambda: min(self.window or length, length) - 1)
        return call.observation(lambda units: self.attention[:, units], filled if stated is None else stated)


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
