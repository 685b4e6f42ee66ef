"""What may a cache lose, and at what price? Curves on some documents, losses and passkeys on the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.runs import Attach
from statesize.check import refuse, require_choice, require_count, require_real
from statesize.errors import ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import reporting
from statesize.io.steps import Steps
from statesize.measurement.settings import FEWEST_PIECES, FOLLOWING, LEAST_PREFIX, Settings, all_but, given_settings
from statesize.models.load import measured_model
from statesize.texts.documents import configured_context
from statesize.texts.inputs import Inputs, tokens_sha256, whole_texts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.behind import Behind, Memory
from statesize.truncation.budgets import Around, at_curves, equal, layer_curves, watch
from statesize.truncation.choices import TOKENS
from statesize.truncation.choices.choice import RECENT, SINKS, kept
from statesize.truncation.choices.rounding import BITS, Precision, cache_bits, rounded_keys, rounded_values
from statesize.truncation.cutting import Cutting, Known
from statesize.truncation.passkeys import Passkey, passkeys
from statesize.truncation.past import HeldAttention
from statesize.truncation.pieces import Piece, two_sets
from statesize.truncation.prices import NOTHING, Budgets, CachePrices, Variant, losing_facts
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import Documents, Keep, Scores, check_head, finish, kept_parts

DOCUMENTS, PIECE, PASSKEYS = 24, 512, 12
"""Pieces of text that are read by default, the tokens of each, and hidden passkeys."""
RATIOS = (0.5, 0.25, 0.125)
"""Shares of the tokens that are always tried, where more is kept than always stays."""
_Cache = tuple[Precision | None, tuple[int, ...]]
"""How numbers are rounded, and the tokens of each cache."""


@on_cpu_by_default
def cache(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    keep: float = 0.25,
    rule: str = "expected",
    documents: int = DOCUMENTS,
    tokens: int = PIECE,
    needles: int = PASSKEYS,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    name: str | None = None,
    output: str | PathLike[str] | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> CachePrices:
    """Price what the cache of a model may lose: rounding, eviction of tokens, and both together.

    The model reads a prefix; its cache is then made smaller once, and the tokens that follow are predicted, all layers
    computed from what is left. A third of the documents shows by how much the output of each layer errs as each of its
    caches keeps fewer tokens; budgets that share out the tokens by these curves stand beside equal ones. Prices are of
    the rest. A third of the rest prices caches that miss passkeys, since these are not recommended at any price.

    Args:
        model: A causal language model of transformers, or what `load` takes.
        inputs: Token ids, texts or files; None reads the bundled documents.
        keep: Share of the tokens that is tried beside ½, ¼ and ⅛.
        rule: Which tokens are kept: "expected" attention, "snapkv", "h2o" or "recent".
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        needles: Passkeys that are hidden in held-out documents; 0 for none. They need a tokenizer.
        tokenizer: The model's, for texts and for bytes.
        name: Name of the model, for the result.
        output: JSON file for the result. Finished documents are kept beside it until then, and are not read again.
        on_progress: Called as (done, total, what, seconds left) after some documents.
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
        >>> [row.rule for row in found.rows][:5]
        ['nothing', 'int8', 'int4', '50 % equal', '50 % by layer']
    """
    share = require_real("keep", keep, above=0, below=1, advice="It is the share of the tokens that stays.")
    wanted = require_count("documents", documents, least=FEWEST_PIECES)
    settings = given_settings(settings).without("cache", *all_but("future"))
    after = require_count("future", settings.future or FOLLOWING, least=2)
    size = require_count("tokens", tokens, least=after + LEAST_PREFIX)
    hidden, rule = require_count("needles", needles, least=0), require_choice("rule", rule, TOKENS)
    model, tokenizer, name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    _require_cache(model)
    context = configured_context(getattr(model, "config", None))
    if context is not None and size > context:
        refuse("tokens", f"at most {context}, the longest context that the model names", size)
    curves, held_out = two_sets(whole_texts(inputs, tokenizer), size, wanted, tokenizer)
    every, prefix = [piece for _, piece in (*curves, *held_out)], size - after
    hiding = [] if tokenizer is None else passkeys(every[len(curves) :], tokenizer, prefix, hidden)
    pricing = Pricing(model, rule, prefix, share, curves, held_out, hiding, tokenizer)
    about = tokens_sha256(every), rule, prefix, share, hidden
    with kept_parts(output, model, *about) as keep_part, reporting(on_progress, f"pricing {name}") as report:
        result = pricing.priced(name, keep_part, report)
    finish(output, result)
    return result


def _require_cache(model: nn.Module) -> None:
    """Refuse a model whose caches of keys and values its own layers do not have each for itself."""
    for name, module in named_parts(model):
        if hasattr(module, "kv_lora_rank"):
            raise ModelError(
                f"{name} must hold keys and values, got a latent (MLA) that its heads read. No price is known."
            )
        if getattr(module, "is_kv_shared_layer", False):
            raise ModelError(f"{name} reads the cache of another layer, so its tokens have no price of their own.")


@dataclass(eq=False)
class Pricing:
    """One price list in the making."""

    model: nn.Module
    rule: str  # which tokens are kept
    prefix: int  # tokens of a prefix
    keep: float  # share of the tokens that is tried beside RATIOS
    curves: Sequence[Piece]  # documents for curves
    held_out: Sequence[Piece]  # documents that are priced
    needles: Sequence[Passkey]  # the passkeys that are hidden
    tokenizer: AnyTokenizer | None = None  # for bytes
    thorough: bool = False  # whether all held-out documents price caches that miss passkeys
    _known: Known = field(default_factory=Known, init=False)
    _budgets: dict[tuple[float, Budgets], Tensor] = field(init=False)

    def __post_init__(self) -> None:
        least, tried = SINKS + RECENT, {*RATIOS, self.keep}
        shared = tuple(sorted((one for one in tried if round(one * self.prefix) > least), reverse=True))
        self.ratios = shared if len(shared) == len(tried) else (*shared, least / self.prefix)
        ways: dict[float, tuple[Budgets, ...]] = dict.fromkeys(self.ratios, ("equal",))
        ways |= dict.fromkeys(shared, ("equal", "layers", "curves"))
        every = [NOTHING, *(Variant(precision=precision) for precision in BITS)]
        every += [Variant(ratio, way) for ratio in self.ratios for way in ways[ratio]]
        self.variants = (*every, *(Variant(ratio, ways[ratio][-1], "int4") for ratio in self.ratios))

    def priced(self, name: str, keep: Keep, report: Callable[..., None]) -> CachePrices:
        """The price list; `keep` makes or returns a part, `report` is called as `Documents` does."""
        place = len(self.held_out[0][1]), self.prefix
        each: dict[str, Sequence[Any]] = {"curves": self.curves, "prices": self.held_out, "passkeys": self.needles}
        run = Documents(keep, report, Steps({kind: len(some) for kind, some in each.items()}))
        measured = run.made("curves", [place] * len(self.curves), self._curves)
        layers: list[dict[str, Any]] = measured[0]["layers"]
        curves = torch.stack([torch.tensor(one["curves"], dtype=torch.float64) for one in measured]).mean(0)
        self._set_budgets(layers, curves)
        hidden = run.made("passkeys", [one.place for one in self.needles], self._found)
        found = tuple(map(sum, zip(*hidden, strict=True)))
        lost = () if self.thorough else losing_facts(self.variants, found, len(self.needles))
        few = evenly(range(len(self.held_out)), max(FEWEST_PIECES, -(-len(self.held_out) // 3)))
        brief = [one for one in self.variants if one is NOTHING or one not in lost]
        tried = [self.variants if number in few else brief for number in range(len(self.held_out))]
        prices = run.made("prices", [place] * len(tried), lambda some: self._documents(some, tried[some]))
        tokens = torch.stack([self._budgets[ratio, "curves"] for ratio in self.ratios], -1)
        each_head = [(layer, head) for layer in layers for head in range(layer["caches"])]
        heads = [
            {"layer": layer["name"], "head": head, "available": layer["available"], "curve": curve, "tokens": kept}
            for (layer, head), curve, kept in zip(each_head, _lists(curves), _lists(tokens), strict=True)
        ]
        return CachePrices(
            name, tuple(map(CutDocument.of, prices)), self.rule, self.prefix, len(self.curves), self.variants,
            tuple(self._bytes_share(layers, one) for one in self.variants), len(self.needles), found, tuple(heads),
            self.ratios,
        )  # fmt: skip

    def _read(self, texts: Tensor, cut: int, *watched: Attach) -> tuple[Behind, Tensor]:
        """A model that has read texts (D, L), behind the cut, and its logits there."""
        cutting = Cutting(Forward.of(self.model, texts), cut, self._known, sized=False)
        logits, name = cutting.read(*watched), type(self.model).__name__
        check_head(self.model, logits, texts)
        if others := self._known.whole | cutting.behind.refused:
            got = "; ".join(f"{mixer} {cause}" for mixer, cause in others.items())
            raise ModelError(
                f"{name} must mix positions only by attention over keys and values, got {got}. Give a causal language "
                "model of transformers with attention, such as SmolLM2."
            )
        if not cutting.behind.sure:
            raise ModelError(
                f"{name} must read tokens behind its cache as in a whole text, got other logits, as of states beside "
                "it or attention in code of its own. No price is known."
            )
        return cutting.behind, logits

    def _curves(self, some: slice) -> list[dict[str, Any]]:
        """Curves of the caches of some documents, (caches, points), and what their layers hold."""
        around, texts = dict[str, Around](), torch.stack([ids for _, ids in self.curves[some]])
        held = self._read(texts, self.prefix, partial(watch, self.model, around))[0].held.values()
        layers = [
            {"name": one.name, "caches": len(one.key), "available": one.available}
            | {"widths": (one.key.shape[-1], one.value.shape[-1])}
            for one, *_ in held
        ]
        choice = TOKENS[self.rule]
        curves = [
            torch.cat([layer_curves(one, choice.order(one), around[one.name]) for one in text])
            for text in zip(*held, strict=True)
        ]
        return [{"curves": made, "layers": layers} for made in curves]

    def _set_budgets(self, layers: Sequence[dict[str, Any]], curves: Tensor) -> None:
        """Tokens of each cache, (caches,), by share and way."""
        caches = [layer["caches"] for layer in layers]
        available = torch.tensor([layer["available"] for layer in layers]).repeat_interleave(torch.tensor(caches))
        self._budgets = {(1.0, "whole"): available, (0.0, "equal"): torch.zeros_like(available)}
        for ratio in self.ratios:
            self._budgets[ratio, "equal"] = by_layer = equal(available, ratio)
            self._budgets[ratio, "curves"] = at_curves(available, curves, ratio)
            if len(set(caches)) == 1:
                errors = curves.view(len(layers), caches[0], -1).sum(1)
                by_layer = at_curves(available[:: caches[0]], errors, ratio).repeat_interleave(caches[0])
            self._budgets[ratio, "layers"] = by_layer

    def _bytes_share(self, layers: Sequence[dict[str, Any]], variant: Variant) -> float:
        """Bytes that a cache keeps, as a share of the whole one in 16 bits."""
        held = [(one["available"], one["widths"]) for one in layers for _ in range(one["caches"])]

        def bits(one: Variant) -> int:
            each = zip(held, _lists(self._budgets[one.keep, one.budgets]), strict=True)
            return sum(cache_bits(one.precision, count, own, *widths) for (count, widths), own in each)

        return bits(variant) / bits(Variant())

    def _documents(self, some: slice, tried: Sequence[Sequence[Variant]]) -> list[CutDocument]:
        """Losses of some documents; NaN for variants that are not tried."""
        behind, logits = self._read(torch.stack([ids for _, ids in self.held_out[some]]), self.prefix)
        answers = [ids[self.prefix + 1 :] for _, ids in self.held_out[some]]
        scores = list(map(Scores, logits, answers))
        documents, none = list[CutDocument](), (math.nan, math.nan)
        size = {one: float(self._budgets[one.keep, one.budgets].double().mean()) for one in (*self.variants, Variant())}
        known = self._each(behind, tried, [one.of for one in scores])
        for number, (answer, score, found) in enumerate(zip(answers, scores, known, strict=True), some.start):
            runs = tuple(CutRun(one.title, one.keep, size[one], *found.get(one, none)) for one in self.variants)
            said = None if self.tokenizer is None else len(str(self.tokenizer.decode(_lists(answer))).encode())
            text, ids = self.held_out[number]
            facts = score.loss, *none, size[Variant()], size[Variant()], runs, text, said
            documents.append(CutDocument(number, len(ids), self.prefix, *facts))
        return documents

    def _found(self, some: slice) -> list[list[int]]:
        """Whether the whole cache finds each passkey, and each variant."""
        needles = self.needles[some]
        behind, logits = self._read(torch.cat([one.text for one in needles]), needles[0].place[1])
        known = self._each(behind, [self.variants] * len(needles), [one.found for one in needles], needles[0].answer)
        every = zip(needles, logits, known, strict=True)
        return [[int(one.found(whole)), *(int(found[each]) for each in self.variants)] for one, whole, found in every]

    def _each(
        self,
        behind: Behind,
        tried: Sequence[Sequence[Variant]],
        measures: Sequence[Callable[[Tensor], Any]],
        last: int = 0,
    ) -> list[dict[Variant, Any]]:
        """What logits behind the cut of each text tell with each cache."""
        held = [layer for layer, *_ in behind.held.values()]
        available = torch.tensor([one.available for one in held for _ in one.key])
        ends = accumulate(len(one.key) for one in held)
        own = {one.name: slice(end - len(one.key), end) for one, end in zip(held, ends, strict=True)}
        orders = {one: TOKENS[self.rule].order(one) for layer in behind.held.values() for one in layer}
        # Where each layer has one cache, budgets by layer and by curves are the same.
        caches = dict[Variant, _Cache]()
        for one in self.variants:
            # They are in proportion to the length of the prefix.
            budgets = (self._budgets[one.keep, one.budgets] * (behind.cut / self.prefix)).round().long()
            tokens = available if one.budgets == "whole" else budgets.minimum(available)
            caches[one] = one.precision, tuple(_lists(tokens))

        def remember(one: HeldAttention, some: Sequence[_Cache]) -> Memory:
            return _memory(one, orders[one], [(precision, tokens[own[one.name]]) for precision, tokens in some])

        wanted = [[*dict.fromkeys(caches[one] for one in some)] for some in tried]
        made = {(at, run): measures[at](logits) for at, run, logits in behind.each(wanted, remember, last)}
        return [{one: made[at, caches[one]] for one in some} for at, some in enumerate(tried)]


def _lists(numbers: Tensor) -> list[Any]:
    return cast("list[Any]", numbers.tolist())


def _memory(held: HeldAttention, order: Tensor, caches: Sequence[_Cache]) -> Memory:
    """What stands in the caches of a layer in several runs: so many tokens each, rounded before they are evicted."""
    precisions: list[Precision | None] = [precision for precision, _ in caches]
    first = held.cut - held.available
    seen = kept(order, torch.tensor([tokens for _, tokens in caches]), held.cut)
    if not any(precisions):
        return Memory(seen=seen)
    keys, values = held.key[:, : held.cut], held.value[:, : held.cut]

    def stacked(whole: Tensor, rounded: Callable[[Tensor, Precision], Tensor]) -> Tensor:
        parts: dict[Precision | None, Tensor] = {None: whole}
        for one in BITS:
            parts[one] = torch.cat([whole[:, :first], rounded(whole[:, first:], one)], 1)
        return torch.stack([parts[one] for one in precisions])

    return Memory(stacked(values, rounded_values)[:, :, None], stacked(keys, rounded_keys), seen)
