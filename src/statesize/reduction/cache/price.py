"""The price list itself: curves on some documents, a choice of budgets on others, losses and passkeys on the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from statesize.check import refuse, require_count, require_real
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import reporting
from statesize.io.steps import Steps
from statesize.measurement.settings import FEWEST_PIECES, FOLLOWING, LEAST_PREFIX, Settings, all_but, given_settings
from statesize.models.load import measured_model
from statesize.reduction.cache.budgets import at_curves, equal
from statesize.reduction.cache.curves import CacheSizes, cache_sizes, curves_of_documents
from statesize.reduction.cache.passkeys import passkeys
from statesize.reduction.cache.prefix import Prefix, check_unaltered, require_context
from statesize.reduction.cache.result import (
    Budgets,
    CachedHead,
    CachePrices,
    PricedDocument,
    SmallerCache,
    Variant,
    losing_facts,
)
from statesize.reduction.cache.rounding import BITS
from statesize.reduction.cache.rules import RECENT, SINKS, Rule
from statesize.reduction.cache.sets import three_sets
from statesize.reduction.cache.variants import VariantRuns
from statesize.texts.documents import configured_context
from statesize.texts.inputs import Inputs, whole_texts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer

DOCUMENTS, TOKENS, PASSKEYS = 36, 512, 12
"""Pieces of text that are read by default, the tokens of each, and hidden passkeys."""
RATIOS = (0.5, 0.25, 0.125)
"""Shares of the tokens that are always tried, where more is kept than always stays."""
# Documents by which ESS of each cache is known.
_SIZED = 2


@on_cpu_by_default
def cache(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    keep: float = 0.25,
    rule: Rule = "expected",
    documents: int = DOCUMENTS,
    tokens: int = TOKENS,
    needles: int = PASSKEYS,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    name: str | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> CachePrices:
    """What the cache of a model may lose, and the price: rounding, eviction of tokens, and both together.

    The model reads a prefix; its cache is then made smaller once, and the tokens that follow are predicted, all layers
    computed from what is left. A third of the documents shows by how much the output of each layer errs as each of its
    caches keeps fewer tokens; budgets that share out the tokens by these curves stand beside equal ones, and a sixth of
    the documents chooses between them. Prices are of the rest, which neither saw. A third of the rest prices
    caches that miss passkeys, since these are not recommended at any price.

    Args:
        model: A causal language model of transformers, or what `load` takes.
        inputs: Token ids, texts or files; None reads the bundled documents.
        keep: Share of the tokens that is tried beside ½, ¼ and ⅛.
        rule: Which tokens are kept: "expected" attention, "snapkv", "h2o" or "streaming".
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        needles: Passkeys that are hidden in held-out documents; 0 for none. They need a tokenizer.
        tokenizer: The model's, for texts and for bytes.
        name: Name of the model, for the result.
        on_progress: Called as (done, total, what, seconds left) after each document.
        settings: `future`, how many last tokens of each piece are read from a smaller cache (64 by default), which
            predicts all but the first; others do not act here.

    Returns:
        The price list, the curves, and a recommendation.

    Raises:
        InputError: An unknown rule, a share outside (0, 1), or too little text.
        ModelError: The model has no cache of keys and values that its own attention alone reads.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
        >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
        >>> ids = torch.randint(1, 64, (12, 72), generator=torch.Generator().manual_seed(0))
        >>> sizes = {"documents": 12, "tokens": 72, "settings": Settings(future=8)}
        >>> found = cache(model, ids, **sizes, on_progress=lambda *step: None)
        >>> [price.variant.title for price in found.prices][:5]
        ['int8', 'int4', '50 % equal', '50 % by layer', '50 % by curves']
    """
    pricing = Pricing(
        model, inputs, keep=keep, rule=rule, documents=documents, tokens=tokens, needles=needles, tokenizer=tokenizer,
        name=name, settings=settings,
    )  # fmt: skip
    total, done = sum(map(len, pricing.parts)) + len(pricing.needles), count(1)
    with reporting(on_progress, f"pricing the cache of {pricing.name}", total) as report:
        return pricing.priced(lambda what: report(next(done), total, what, pricing.steps.left))


class Pricing:
    """One price list in the making; arguments are those of `cache`.

    Attributes:
        ratios: Shares of the tokens that are tried, descending; the last may be that of the tokens that always stay.
        shared: Those of them at which tokens can be shared out among the caches.
        parts: Documents for curves, for the choice of budgets, and held out, these with the number of each text.
        needles: The passkeys that are hidden.
        steps: What is done: the curves of a document, sizes of caches, prefixes that are read, the tokens of runs after
            these, and measurements of the speed of a cache.
    """

    def __init__(
        self,
        model: nn.Module | str,
        inputs: Inputs | None,
        *,
        keep: float = 0.25,
        rule: Rule = "expected",
        documents: int = DOCUMENTS,
        tokens: int = TOKENS,
        needles: int = PASSKEYS,
        tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
        name: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        if rule not in get_args(Rule):
            refuse("rule", f"one of {', '.join(get_args(Rule))}", rule)
        share = require_real("keep", keep, above=0, below=1, advice="It is the share of the tokens that stays.")
        wanted = require_count("documents", documents, least=FEWEST_PIECES)
        settings = given_settings(settings).without("cache", *all_but("future"))
        after = require_count("future", settings.future or FOLLOWING, least=2)
        size = require_count("tokens", tokens, least=after + LEAST_PREFIX)
        hidden = require_count("needles", needles, least=0)
        self.rule: Rule = rule
        self.model, self.tokenizer, self.name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
        require_context(configured_context(getattr(self.model, "config", None)), size)
        texts = whole_texts(inputs, self.tokenizer)
        self.parts = three_sets(texts, size, wanted, self.tokenizer, least=after + LEAST_PREFIX)
        least, self.prefix, tried = SINKS + RECENT, size - after, {*RATIOS, share}
        self.shared = tuple(sorted((one for one in tried if round(one * self.prefix) > least), reverse=True))
        self.ratios = self.shared if len(self.shared) == len(tried) else (*self.shared, least / self.prefix)
        pieces = [ids for _, ids in self.parts[2]]
        self.needles = [] if self.tokenizer is None else passkeys(pieces, self.tokenizer, self.prefix, hidden)
        curves, choice, priced = map(len, self.parts)
        # The first document also alone and as a whole with nothing attached, and once more with one run of each kind.
        self.steps = Steps(
            {
                "curves": curves,
                "sizes": min(_SIZED, curves),
                "prefixes": 3 + curves + choice + priced + len(self.needles),
                "without a prefix": 1 + priced,
                # With passkeys a half of the caches that evict is likely to miss some.
                "runs": self._run_tokens((len(self.ratios) + len(self.shared)) * bool(self.needles)),
            }
        )

    def _run_tokens(self, lost: int) -> int:
        """Tokens of all runs, where so many caches miss passkeys."""
        _, choice, held_out = map(len, self.parts)
        caches = 1 + len(BITS) + 2 * len(self.ratios) + 2 * len(self.shared)
        # 4 runs over the first document.
        runs = 4 + 2 * len(self.shared) * choice + caches * held_out - lost * (held_out - _few(held_out))
        following = len(self.parts[2][0][1]) - self.prefix - 1
        return runs * following + caches * sum(one.following.shape[1] - 1 for one in self.needles)

    def priced(self, step: Callable[[str], None], *, thorough: bool = False) -> CachePrices:
        """The price list; `step` is called with what a document was for.

        Caches that miss passkeys cannot be recommended, so a third of the documents prices them, unless it is to be
        thorough.

        Returns:
            The price list.
        """
        calibration, selection, held_out = self.parts
        curves, sizes, sample = self._calibrated(calibration, step)
        budgets = self._budgets(sample, curves)
        runs = self._runs(budgets)
        chosen = self._chosen(selection, runs, step)
        variants = tuple(self._variants(chosen))
        found, documents = runs.found(self.needles, variants, step), list[PricedDocument]()
        lost = () if thorough else losing_facts(variants, found, len(self.needles))
        complete = evenly(range(len(held_out)), _few(len(held_out)))
        self.steps.costs["runs"] = self._run_tokens(len(lost))
        for number, (text, ids) in enumerate(held_out):
            left_out = () if number in complete else lost
            documents.append(replace(runs.document(ids, variants, left_out), text=text))
            step("held-out documents")
        return CachePrices(
            self.name,
            self.rule,
            self.prefix,
            len(calibration),
            len(selection),
            tuple(documents),
            variants,
            tuple(runs.bytes_share(sample, variant) for variant in variants),
            chosen,
            len(self.needles),
            found,
            self._heads(sample, curves, sizes, budgets),
            self.ratios,
            self._smaller(sample, budgets),
        )

    def _runs(self, budgets: dict[tuple[float, Budgets], Tensor]) -> VariantRuns:
        return VariantRuns(self.model, self.rule, self.prefix, self.tokenizer, budgets, self.steps)

    def _smaller(self, sample: Prefix, budgets: dict[tuple[float, Budgets], Tensor]) -> tuple[SmallerCache, ...]:
        """Bytes of the model's own cache, whole and at all shares."""
        if not sample.holds_layers_apart:
            return ()
        tokens = {1.0: sample.available} | {ratio: budgets[ratio, "layers"] for ratio in self.ratios}
        return tuple(SmallerCache(ratio, sample.cache_bytes(count)) for ratio, count in tokens.items())

    def _calibrated(
        self, documents: Sequence[Tensor], step: Callable[[str], None]
    ) -> tuple[Tensor, CacheSizes, Prefix]:
        """Mean curves (caches, points), mean sizes, and the last prefix."""
        curves: list[Tensor] = []
        sizes: list[CacheSizes] = []
        made, read = curves_of_documents(self.model, documents, self.prefix, self.rule, self.steps), None
        for ids, (read, found) in zip(documents, made, strict=True):
            curves.append(found)
            if len(sizes) < _SIZED:
                with self.steps.timed("sizes"):
                    sizes.append(cache_sizes(read))
            if len(curves) == 1:
                with self.steps.timed("prefixes", 2):
                    check_unaltered(read, ids[None, self.prefix :])
                # One of each kind, by which the time that is left is known.
                ratio, equally = self.ratios[0], equal(read.available, self.ratios[0])
                tried = (Variant(precision="int4"), Variant(ratio, "equal"), Variant(ratio, "equal", "int4"))
                self._runs({(ratio, "equal"): equally}).document(ids, tried)
            step("curves")
        means = (torch.stack(each).mean(0) for each in zip(*sizes, strict=True))
        return torch.stack(curves).mean(0), CacheSizes(*means), cast("Prefix", read)

    def _budgets(self, sample: Prefix, curves: Tensor) -> dict[tuple[float, Budgets], Tensor]:
        """Tokens of each cache, (caches,), by share and way."""
        made: dict[tuple[float, Budgets], Tensor] = {}
        for ratio in self.ratios:
            made[ratio, "equal"] = equal(sample.available, ratio)
            made[ratio, "curves"] = at_curves(sample.available, curves, ratio)
            made[ratio, "layers"] = _by_layer(sample, curves, ratio)
        return made

    def _chosen(
        self, documents: Sequence[Tensor], runs: VariantRuns, step: Callable[[str], None]
    ) -> dict[float, Budgets]:
        """For each share the budgets that lose less on documents of their own; equal ones where curves do not."""
        variants = [Variant(ratio, way) for ratio in self.shared for way in ("equal", "curves")]
        losses: list[list[float]] = []
        for ids in documents:
            losses.append(runs.losses(ids, variants))
            step("choice of budgets")
        means = torch.tensor(losses, dtype=torch.float64).mean(0)
        return {
            ratio: "curves" if curves < same else "equal"
            for ratio, (same, curves) in zip(self.shared, means.view(-1, 2), strict=True)
        }

    def _variants(self, chosen: dict[float, Budgets]) -> list[Variant]:
        rounded = [Variant(precision=precision) for precision in BITS]
        ways: dict[float, tuple[Budgets, ...]] = dict.fromkeys(self.shared, ("equal", "layers", "curves"))
        evicted = [Variant(ratio, way) for ratio in self.ratios for way in ways.get(ratio, ("equal",))]
        return [*rounded, *evicted, *(Variant(ratio, chosen.get(ratio, "equal"), "int4") for ratio in self.ratios)]

    def _heads(
        self,
        sample: Prefix,
        curves: Tensor,
        sizes: CacheSizes,
        budgets: dict[tuple[float, Budgets], Tensor],
    ) -> tuple[CachedHead, ...]:
        names = [(layer.name, head) for layer in sample.layers for head in range(len(layer.key))]
        tokens = torch.stack([budgets[ratio, "curves"] for ratio in self.ratios], -1)
        columns = (sample.available, curves, sizes.joint, sizes.read, sizes.sink, tokens)
        rows = zip(*(cast("list[Any]", column.tolist()) for column in columns), strict=True)
        return tuple(
            CachedHead(*name, available, tuple(curve), joint, read, sink, tuple(kept))
            for name, (available, curve, joint, read, sink, kept) in zip(names, rows, strict=True)
        )


def _few(documents: int) -> int:
    """How many of the held-out documents price a cache that misses passkeys."""
    return min(documents, max(FEWEST_PIECES, -(-documents // 3)))


def _by_layer(sample: Prefix, curves: Tensor, ratio: float) -> Tensor:
    """Budgets by curves that are the same for all caches of a layer, (caches,); equal ones where layers differ."""
    caches = [len(layer.key) for layer in sample.layers]
    if len(set(caches)) > 1:
        return equal(sample.available, ratio)
    available, errors = sample.available.view(-1, caches[0])[:, 0], curves.view(-1, caches[0], curves.shape[-1]).sum(1)
    return at_curves(available, errors, ratio).repeat_interleave(caches[0])
