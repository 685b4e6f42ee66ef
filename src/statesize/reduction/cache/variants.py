"""Documents and passkeys with each variant of a cache: what the tokens that follow lose, and what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.models.model_state import device_of, logits_of
from statesize.adapters.runs import eval_mode
from statesize.io.steps import Steps
from statesize.reduction.cache.passkeys import passkeys
from statesize.reduction.cache.prefix import Prefix, following_logits, read_prefix
from statesize.reduction.cache.result import Budgets, PricedDocument, Variant
from statesize.reduction.cache.rounding import BITS, bits_a_number
from statesize.reduction.cache.rules import Rule, kept, kept_first
from statesize.texts.tokens import AnyTokenizer, beginning_id

# Tokens that follow in one run: more are hardly faster, and each sequence has a cache of its own.
_POSITIONS = 256


@dataclass(frozen=True, eq=False)
class VariantRuns:
    """What runs with a smaller cache need.

    Attributes:
        model: A causal language model of transformers.
        rule: Which tokens are kept.
        prefix: Tokens of a prefix.
        tokenizer: For bytes and passkeys.
        budgets: Tokens of each cache, (caches,), by share and way.
        steps: Times prefixes, and runs.
    """

    model: nn.Module
    rule: Rule
    prefix: int
    tokenizer: AnyTokenizer | None
    budgets: dict[tuple[float, Budgets], Tensor]
    steps: Steps = field(default_factory=lambda: Steps({}))

    def document(self, ids: Tensor, variants: Sequence[Variant]) -> PricedDocument:
        """Losses of one document (L,)."""
        rest = ids[None, self.prefix :]
        logits = self._logits(ids[None, : self.prefix], rest, variants)
        whole, *smaller = (_loss(one, rest) for one in logits)
        extra = tuple(loss - whole for loss in smaller)
        return PricedDocument(rest.shape[1] - 1, self._bytes(rest[0, 1:]), whole, extra, self._alone(rest) - whole)

    def _alone(self, rest: Tensor) -> float:
        """The loss of the tokens (1, C) where nothing is read before them."""
        first = beginning_id(self.tokenizer)
        begun = rest if first is None else torch.cat([rest.new_full((1, 1), first), rest], 1)
        with self.steps.timed("without a prefix"), eval_mode(self.model), torch.no_grad():
            logits = logits_of(self.model, begun.to(device_of(self.model)))
        return _loss(logits[0, -rest.shape[1] :].float(), rest)

    def found(
        self, pieces: Sequence[Tensor], count: int, variants: Sequence[Variant], step: Callable[[str], None]
    ) -> tuple[int, ...]:
        """How many of `count` passkeys in pieces of text the whole cache finds, and each variant."""
        counts = [0] * (len(variants) + 1)
        if self.tokenizer is None:
            return tuple(counts)
        for needle in passkeys(pieces, self.tokenizer, self.prefix, count):
            logits = self._logits(needle.prefix, needle.following, variants)
            for at, one in enumerate(logits):
                counts[at] += needle.found(one)
            step("passkeys")
        return tuple(counts)

    def bytes_share(self, sample: Prefix, variant: Variant) -> float:
        """Bytes that a cache keeps, as a share of the whole one in 16 bits."""
        caches = [layer for layer in sample.layers for _ in layer.key]
        tokens = sample.available if variant.budgets == "whole" else self.budgets[variant.keep, variant.budgets]
        widths = [(layer.key.shape[-1], layer.value.shape[-1]) for layer in caches]
        whole = sum(16 * sum(width) * int(count) for width, count in zip(widths, sample.available, strict=True))
        held = sum(
            bits_a_number(variant.precision, *width) * sum(width) * int(count)
            for width, count in zip(widths, tokens, strict=True)
        )
        return held / whole

    def _logits(self, prefix: Tensor, rest: Tensor, variants: Sequence[Variant]) -> list[Tensor]:
        """Logits with the whole cache of a prefix (1, P), and of each variant."""
        with self.steps.timed("prefixes"):
            read = read_prefix(self.model, prefix)
            orders = [kept_first(self.rule, layer) for layer in read.layers]
        every, made = [Variant(), *variants], dict[Variant, Tensor]()
        at_once = max(1, _POSITIONS // rest.shape[1])
        for precision in (None, *BITS):
            alike = [variant for variant in every if variant.precision == precision]
            for first in range(0, len(alike), at_once):
                some = alike[first : first + at_once]
                with self.steps.timed("runs", len(some)):
                    budgets = torch.stack([self._tokens(variant, read) for variant in some])
                    each = torch.split(budgets, [len(order) for order in orders], -1)
                    keep = [kept(order, budget) for order, budget in zip(orders, each, strict=True)]
                    made |= zip(some, following_logits(read, rest, keep=keep, precision=precision), strict=True)
        return [made[variant] for variant in every]

    def _tokens(self, variant: Variant, read: Prefix) -> Tensor:
        """How many tokens each cache of a prefix keeps, (caches,); budgets are in proportion to its length."""
        if variant.budgets == "whole":
            return read.available
        budgets, length = self.budgets[variant.keep, variant.budgets], int(read.available.max())
        if length not in (self.prefix, int(budgets.max())):
            budgets = (budgets * (length / self.prefix)).round().long()
        return budgets.minimum(read.available)

    def _bytes(self, ids: Tensor) -> int | None:
        if self.tokenizer is None:
            return None
        return len(str(self.tokenizer.decode(cast("list[int]", ids.tolist()))).encode())


def _loss(logits: Tensor, ids: Tensor) -> float:
    """Nats per token of tokens (1, C) after the first."""
    return float(functional.cross_entropy(logits[:-1], ids[0, 1:].to(logits.device)))
