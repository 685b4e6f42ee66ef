"""What may a cache lose, and at what price? Curves on some documents, losses and passkeys on the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby, takewhile
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import known_options, named_parts
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
from statesize.truncation.behind import POSITIONS, Behind, Memory, logits_behind
from statesize.truncation.budgets import Around, at_curves, equal, layer_curves, watch
from statesize.truncation.choices import TOKENS
from statesize.truncation.choices.choice import RECENT, SINKS, kept
from statesize.truncation.choices.rounding import BITS, Precision, cache_bits, rounded_keys, rounded_values
from statesize.truncation.cutting import Cutting
from statesize.truncation.passkeys import Passkey, passkeys
from statesize.truncation.past import HeldAttention
from statesize.truncation.pieces import cut_ids, two_sets
from statesize.truncation.prices import NOTHING, Budgets, CachePrices, Variant, losing_facts
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import Documents, Keep, Scores, check_head, finish, kept_parts

DOCUMENTS, PIECE, PASSKEYS = 24, 512, 12
"""Pieces of text that are read by default, the tokens of each, and hidden passkeys."""
READ = 2048
"""Tokens of documents of one length that are read at once."""
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
    require_cache(model)
    context = configured_context(getattr(model, "config", None))
    if context is not None and size > context:
        refuse("tokens", f"at most {context}, the longest context that the model names", size)
    curves, held_out = two_sets(whole_texts(inputs, tokenizer), size, wanted, tokenizer)
    prefix = size - after
    hiding = [] if tokenizer is None else passkeys([piece for _, piece in held_out], tokenizer, prefix, hidden)
    pricing = Pricing(model, rule, prefix, share, curves, held_out, hiding, tokenizer)
    about = tokens_sha256([*curves, *(piece for _, piece in held_out)]), rule, prefix, share, hidden
    with kept_parts(output, model, *about) as keep_part, reporting(on_progress, f"pricing {name}") as report:
        result = pricing.priced(name, keep_part, report)
    finish(output, result)
    return result


def require_cache(model: nn.Module) -> None:
    """Refuse a model whose caches of keys and values its own layers do not have each for itself."""
    if not known_options(model, past_key_values=None):
        raise ModelError(
            f"the model must have a cache of keys and values of transformers, got a {type(model).__name__} without. "
            "Give a causal language model of transformers with attention, such as SmolLM2."
        )
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
    curves: Sequence[Tensor]  # documents for curves
    held_out: Sequence[tuple[int, Tensor]]  # documents that are priced, with the number of each text
    needles: Sequence[Passkey]  # the passkeys that are hidden
    tokenizer: AnyTokenizer | None = None  # for bytes
    thorough: bool = False  # whether all held-out documents price caches that miss passkeys
    # The model behind the cut of the first text of a length, by that length and the cut.
    _first: dict[tuple[int, int], Behind] = field(default_factory=dict[tuple[int, int], Behind], init=False)
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
        at_once = max(1, READ // len(self.held_out[0][1]))
        counts: dict[str, float] = {"curves": len(self.curves), "prices": len(self.held_out)}
        run = Documents(keep, report, Steps(counts | {"passkeys": len(self.needles)}))

        def each(kind: str, places: Sequence[tuple[int, int]], make: Callable[[slice], list[Any]]) -> list[Any]:
            """What is made of all documents: of those of one length and cut, some at once behind the first."""
            made = list[Any]()
            while (first := len(made)) < len(places):
                most = at_once if places[first] in self._first else 1
                count = len([*takewhile(places[first].__eq__, places[first : first + most])])
                made += run.made(kind, f"{first:06d}", partial(make, slice(first, first + count)), count)
            return made

        place = len(self.held_out[0][1]), self.prefix
        measured = each("curves", [place] * len(self.curves), self._curves)
        layers: list[dict[str, Any]] = measured[0]["layers"]
        curves = torch.stack([torch.tensor(one["curves"], dtype=torch.float64) for one in measured]).mean(0)
        self._set_budgets(layers, curves)
        found = tuple(map(sum, zip(*each("passkeys", [one.place for one in self.needles], self._found), strict=True)))
        lost = () if self.thorough else losing_facts(self.variants, found, len(self.needles))
        few = evenly(range(len(self.held_out)), max(FEWEST_PIECES, -(-len(self.held_out) // 3)))
        brief = [one for one in self.variants if one is NOTHING or one not in lost]
        tried = [self.variants if number in few else brief for number in range(len(self.held_out))]
        prices = each("prices", [place] * len(tried), lambda some: self._documents(some, tried[some]))
        tokens = torch.stack([self._budgets[ratio, "curves"] for ratio in self.ratios], -1)
        places = [(layer["name"], head, layer["available"]) for layer in layers for head in range(layer["caches"])]
        each_cache = zip(places, _lists(curves), _lists(tokens), strict=True)
        names = "layer", "head", "available", "curve", "tokens"
        return CachePrices(
            name, tuple(map(CutDocument.of, prices)), self.rule, self.prefix, len(self.curves), self.variants,
            tuple(self._bytes_share(layers, one) for one in self.variants), len(self.needles), found,
            tuple(dict(zip(names, (*place, *known), strict=True)) for place, *known in each_cache), self.ratios,
        )  # fmt: skip

    def _read(self, texts: Tensor, cut: int, watched: Attach | None = None) -> tuple[list[Behind], Tensor]:
        """A model that has read texts (D, L), each behind the cut, and its logits there."""
        place = texts.shape[1], cut
        if place in self._first:
            return self._first[place].others(texts, watched)
        cutting = Cutting(Forward.of(self.model, texts), cut, sized=False)
        logits = cutting.read(watched, compare=not self._first)
        check_head(self.model, logits, texts[0, cut + 1 :])
        self._first[place] = _sure(cutting, type(self.model).__name__)
        return [self._first[place]], logits[None]

    def _curves(self, some: slice) -> list[dict[str, Any]]:
        """Curves of the caches of some documents, (caches, points), and what their layers hold."""
        around = dict[str, Around]()
        texts, _ = self._read(torch.stack([*self.curves[some]]), self.prefix, partial(watch, self.model, around))
        layers = [
            {"name": one.name, "caches": len(one.key), "available": one.available}
            | {"widths": (one.key.shape[-1], one.value.shape[-1])}
            for one in texts[0].held.values()
        ]
        curves = (
            [layer_curves(one, TOKENS[self.rule].order(one), around[one.name], at) for one in text.held.values()]
            for at, text in enumerate(texts)
        )
        return [{"curves": torch.cat(made), "layers": layers} for made in curves]

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
        tokens = _lists(self._budgets[variant.keep, variant.budgets])
        whole = sum(cache_bits(None, count, count, *widths) for count, widths in held)
        each = zip(held, tokens, strict=True)
        return sum(cache_bits(variant.precision, count, own, *widths) for (count, widths), own in each) / whole

    def _documents(self, some: slice, tried: Sequence[Sequence[Variant]]) -> list[CutDocument]:
        """Losses of some documents; NaN for variants that are not tried."""
        pieces = self.held_out[some]
        texts, logits = self._read(torch.stack([ids for _, ids in pieces]), self.prefix)
        answers = [cut_ids(ids, self.prefix) for _, ids in pieces]
        scores = list(map(Scores, logits, answers))
        sizes = {key: float(one.double().mean()) for key, one in self._budgets.items()}
        documents, none = list[CutDocument](), (math.nan, math.nan)
        known = self._each(texts, tried, [one.of for one in scores])
        for number, ((text, ids), answer, score, found) in enumerate(
            zip(pieces, answers, scores, known, strict=True), some.start
        ):
            runs = (
                CutRun(one.title, one.keep, sizes[one.keep, one.budgets], *found.get(one, none))
                for one in self.variants
            )
            said = None if self.tokenizer is None else len(str(self.tokenizer.decode(_lists(answer))).encode())
            facts = *none, sizes[1.0, "whole"], sizes[1.0, "whole"], tuple(runs), text, said
            documents.append(CutDocument(number, len(ids), self.prefix, score.loss, *facts))
        return documents

    def _found(self, some: slice) -> list[list[int]]:
        """Whether the whole cache finds each passkey, and each variant."""
        needles = self.needles[some]
        ids = torch.cat([torch.cat([one.prefix, one.following], 1) for one in needles])
        texts, logits = self._read(ids, needles[0].prefix.shape[1])
        known = self._each(texts, [self.variants] * len(needles), [one.found for one in needles], needles[0].answer)
        every = zip(needles, logits, known, strict=True)
        return [[int(one.found(whole)), *(int(found[each]) for each in self.variants)] for one, whole, found in every]

    def _each(
        self,
        texts: Sequence[Behind],
        tried: Sequence[Sequence[Variant]],
        measures: Sequence[Callable[[Tensor], Any]],
        last: int = 0,
    ) -> list[dict[Variant, Any]]:
        """What logits behind the cut of each text tell with each cache."""
        held, cut, choice = [*texts[0].held.values()], texts[0].cut, TOKENS[self.rule]
        available = torch.tensor([one.available for one in held for _ in one.key])
        ends = accumulate(len(one.key) for one in held)
        own = {one.name: slice(end - len(one.key), end) for one, end in zip(held, ends, strict=True)}
        orders = [{one.name: (choice.order(one), own[one.name]) for one in text.held.values()} for text in texts]
        # Where each layer has one cache, budgets by layer and by curves are the same.
        caches = dict[Variant, _Cache]()
        for one in self.variants:
            caches[one] = one.precision, tuple(_lists(self._tokens(one, available, cut)))
        rows = [(at, cache) for at, some in enumerate(tried) for cache in dict.fromkeys(caches[one] for one in some)]
        made, at_once = dict[tuple[int, _Cache], Any](), max(1, POSITIONS // (last or texts[0].forward.length - cut))
        for alike in (rows[first : first + at_once] for first in range(0, len(rows), at_once)):
            parts = [(at, [cache for _, cache in some]) for at, some in groupby(alike, lambda row: row[0])]
            runs = [(texts[at], partial(_memory, orders=orders[at], caches=some), len(some)) for at, some in parts]
            for (at, some), logits in zip(parts, logits_behind(runs, last), strict=True):
                made |= {(at, cache): measures[at](one) for cache, one in zip(some, logits, strict=True)}
        return [{one: made[at, caches[one]] for one in some} for at, some in enumerate(tried)]

    def _tokens(self, variant: Variant, available: Tensor, prefix: int) -> Tensor:
        """How many tokens each cache of a prefix keeps, (caches,); budgets are in proportion to its length."""
        if variant.budgets == "whole":
            return available
        budgets = self._budgets[variant.keep, variant.budgets]
        return (budgets * (prefix / self.prefix)).round().long().minimum(available)


def _sure(cutting: Cutting, name: str) -> Behind:
    """A model behind a cut, if its caches alone hold what it has read."""
    behind, others = cutting.behind, cutting.whole | cutting.behind.refused
    must, got = "read several tokens behind its cache as in a whole text", "other logits, as of states beside it"
    if not behind.held:
        must, got = "attend by functions of transformers, which take any cache", "attention in code of its own"
    elif others:
        got = "; ".join(f"{mixer} {cause}" for mixer, cause in others.items())
        must = "mix positions only by attention over keys and values"
    elif behind.sure:
        return behind
    raise ModelError(f"{name} must {must}, got {got}. No price is known.")


def _lists(numbers: Tensor) -> list[Any]:
    return cast("list[Any]", numbers.tolist())


def _memory(held: HeldAttention, orders: dict[str, tuple[Tensor, slice]], caches: Sequence[_Cache]) -> Memory:
    """What stands in the cache of a layer in several runs: so many tokens each, rounded before they are evicted."""
    order, own = orders[held.name]
    precisions: list[Precision | None] = [precision for precision, _ in caches]
    first = held.cut - held.available
    seen = kept(order, torch.tensor([tokens[own] for _, tokens in caches]), held.cut)
    if not any(precisions):
        return Memory(seen=seen)
    keys, values = held.key[:, : held.cut], held.value[:, : held.cut]

    def stacked(whole: Tensor, rounded: Callable[[Tensor, Precision], Tensor]) -> Tensor:
        parts: dict[Precision | None, Tensor] = {None: whole}
        for one in BITS:
            parts[one] = torch.cat([whole[:, :first], rounded(whole[:, first:], one)], 1)
        return torch.stack([parts[one] for one in precisions])

    return Memory(stacked(values, rounded_values)[:, :, None], stacked(keys, rounded_keys), seen)
