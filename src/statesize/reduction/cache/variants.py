"""Documents and passkeys with each variant of a cache: what the tokens that follow lose, and what is found."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.models.model_state import device_of, logits_of
from statesize.adapters.runs import eval_mode
from statesize.io.steps import Steps
from statesize.reduction.cache.passkeys import Passkey
from statesize.reduction.cache.prefix import Prefix, following_logits, read_prefix
from statesize.reduction.cache.result import Budgets, PricedDocument, Variant
from statesize.reduction.cache.rounding import Precision, cache_bits
from statesize.reduction.cache.rules import Rule, kept, kept_first
from statesize.texts.tokens import AnyTokenizer, beginning_id

# Tokens that follow in one run: more are hardly faster, and each sequence has a cache of its own.
_POSITIONS = 512
Told = TypeVar("Told")
# How numbers are rounded, and the tokens of each cache.
_Cache: TypeAlias = tuple[Precision | None, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class VariantRuns:
    """What runs with a smaller cache need.

    Attributes:
        model: A causal language model of transformers.
        rule: Which tokens are kept.
        prefix: Tokens of a prefix.
        tokenizer: For bytes and passkeys.
        budgets: Tokens of each cache, (caches,), by share and way.
        steps: Times prefixes, and runs by the tokens that follow.
    """

    model: nn.Module
    rule: Rule
    prefix: int
    tokenizer: AnyTokenizer | None
    budgets: dict[tuple[float, Budgets], Tensor]
    steps: Steps = field(default_factory=lambda: Steps({}))

    def document(self, ids: Tensor, variants: Sequence[Variant], left_out: Collection[Variant] = ()) -> PricedDocument:
        """Losses of one document (L,); NaN for variants that are left out."""
        tried, rest = [one for one in variants if one not in left_out], ids[None, self.prefix :]
        whole, *smaller = self.losses(ids, [Variant(), *tried])
        loss_of = dict(zip(tried, smaller, strict=True))
        extra = tuple(loss_of.get(one, math.nan) - whole for one in variants)
        return PricedDocument(rest.shape[1] - 1, self._bytes(rest[0, 1:]), whole, extra, self._alone(rest) - whole)

    def losses(self, ids: Tensor, variants: Sequence[Variant]) -> list[float]:
        """Nats per token of one document (L,) with each variant."""
        prefix, rest = ids[None, : self.prefix], ids[None, self.prefix :]
        return self._each(prefix, rest, variants, lambda logits: _loss(logits, rest))

    def _alone(self, rest: Tensor) -> float:
        """The loss of the tokens (1, C) where nothing is read before them."""
        first = beginning_id(self.tokenizer)
        begun = rest if first is None else torch.cat([rest.new_full((1, 1), first), rest], 1)
        with self.steps.timed("without a prefix"), eval_mode(self.model), torch.no_grad():
            logits = logits_of(self.model, begun[:, :-1].to(device_of(self.model)), last=rest.shape[1] - 1)
        return _loss(logits[0].float(), rest)

    def found(
        self, needles: Sequence[Passkey], variants: Sequence[Variant], step: Callable[[str], None]
    ) -> tuple[int, ...]:
        """How many passkeys the whole cache finds, and each variant."""
        counts = [0] * (len(variants) + 1)
        for needle in needles:
            every = [Variant(), *variants]
            found = self._each(needle.prefix, needle.following, every, needle.found, last=needle.answer)
            counts = [count + one for count, one in zip(counts, found, strict=True)]
            step("passkeys")
        return tuple(counts)

    def bytes_share(self, sample: Prefix, variant: Variant) -> float:
        """Bytes that a cache keeps, as a share of the whole one in 16 bits."""
        caches = [layer for layer in sample.layers for _ in layer.key]
        tokens = sample.available if variant.budgets == "whole" else self.budgets[variant.keep, variant.budgets]
        whole = held = 0
        for layer, available, count in zip(caches, map(int, sample.available), map(int, tokens), strict=True):
            widths = layer.key.shape[-1], layer.value.shape[-1]
            whole += cache_bits(None, available, available, *widths)
            held += cache_bits(variant.precision, available, count, *widths)
        return held / whole

    def _each(
        self, prefix: Tensor, rest: Tensor, variants: Sequence[Variant], told: Callable[[Tensor], Told], last: int = 0
    ) -> list[Told]:
        """What logits of the tokens that follow, (1, C), tell with each cache of a prefix (1, P)."""
        with self.steps.timed("prefixes"):
            read = read_prefix(self.model, prefix)
            orders = [kept_first(self.rule, layer) for layer in read.layers]
        # Nothing is predicted after the last token.
        ids, made = rest[:, :-1], dict[_Cache, Told]()
        at_once = max(1, _POSITIONS // ids.shape[1])
        # Where each layer has one cache, budgets by layer and by curves are the same.
        tokens = [tuple(cast("list[int]", self._tokens(one, read).tolist())) for one in variants]
        caches: list[_Cache] = [(one.precision, count) for one, count in zip(variants, tokens, strict=True)]
        different = list(dict.fromkeys(caches))
        for first in range(0, len(different), at_once):
            some = different[first : first + at_once]
            with self.steps.timed("runs", ids.shape[1] * sum(map(caches.count, some))):
                precisions, counts = zip(*some, strict=True)
                each = torch.split(torch.tensor(counts), list(map(len, orders)), -1)
                keep = [kept(order, budget) for order, budget in zip(orders, each, strict=True)]
                logits = following_logits(read, ids, keep=keep, precisions=precisions, last=last)
                made |= zip(some, map(told, logits), strict=True)
        return [made[one] for one in caches]

    def _tokens(self, variant: Variant, read: Prefix) -> Tensor:
        """How many tokens each cache of a prefix keeps, (caches,); budgets are in proportion to its length."""
        if variant.budgets == "whole":
            return read.available
        budgets, length = self.budgets[variant.keep, variant.budgets], read.ids.shape[1]
        if length != self.prefix:
            budgets = (budgets * (length / self.prefix)).round().long()
        return budgets.minimum(read.available)

    def _bytes(self, ids: Tensor) -> int | None:
        if self.tokenizer is None:
            return None
        return len(str(self.tokenizer.decode(cast("list[int]", ids.tolist()))).encode())


def _loss(logits: Tensor, ids: Tensor) -> float:
    """Nats per token of tokens (1, C) after the first, by logits (C − 1, V)."""
    return float(functional.cross_entropy(logits, ids[0, 1:].to(logits.device), reduction="none").double().mean())
