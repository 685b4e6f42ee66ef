"""What may a cache lose, and at what price? Curves on some documents, losses on the rest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.runs import Attach
from statesize.check import require_count, require_real
from statesize.errors import ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.progress import Bar
from statesize.measurement.settings import FEWEST_PIECES, FOLLOWING, LEAST_PREFIX, Settings, all_but, given_settings
from statesize.models.load import measured_model
from statesize.texts.inputs import Inputs, tokens_sha256, whole_texts
from statesize.texts.tokens import AnyTokenizer
from statesize.truncation.behind import Behind, HeldAttention, Memory
from statesize.truncation.budgets import Around, at_curves, at_layer_curves, equal, layer_curves, watch
from statesize.truncation.choices.choice import RECENT, SINKS, Eviction, kept
from statesize.truncation.choices.expected import ExpectedAttention
from statesize.truncation.choices.recent import RecentTokens
from statesize.truncation.choices.rounding import BITS, Precision, cache_bits, rounded_keys, rounded_values
from statesize.truncation.cutting import Cutting, lists
from statesize.truncation.prices import NOTHING, WHOLE, Budgets, CachePrices, Tokens, Variant
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import Documents, Keep, Piece, Scores, check_head, kept_result, two_sets
from statesize.truncation.traced import Known

DOCUMENTS, PIECE = 12, 512
"""Pieces of text that are read by default, and the tokens of each."""
RATIOS = (0.5, 0.25, 0.125)
"""Shares of the tokens that are always tried, where more is kept than always stays."""
EVICTIONS: dict[Tokens, Eviction] = {"expected": ExpectedAttention(), "recent": RecentTokens()}
_WAYS: tuple[tuple[Tokens, Budgets], ...] = (
    ("recent", "equal"), ("expected", "equal"), ("expected", "layers"), ("expected", "curves")
)  # fmt: skip


@on_cpu_by_default
def cache(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    keep: float = 0.25,
    documents: int = DOCUMENTS,
    tokens: int = PIECE,
    tokenizer: AnyTokenizer | None = None,
    name: str | None = None,
    output: str | PathLike[str] | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> CachePrices:
    """Price what the cache of a model may lose: rounding, eviction of tokens, and both together.

    The model reads a prefix; its cache is then made smaller once, and the tokens that follow are predicted, all layers
    computed from what is left. A third of the documents shows by how much the output of each layer errs as each of its
    caches keeps fewer tokens; budgets that share out the tokens by these curves stand beside equal ones. Prices are of
    the rest.

    Args:
        model: A causal language model of transformers, or what `load` takes.
        inputs: Token ids, texts or files; None reads the bundled documents.
        keep: Share of the tokens that is tried beside ½, ¼ and ⅛.
        documents: Pieces of the inputs that are read, from all parts of them.
        tokens: Tokens of each piece.
        tokenizer: The model's, for texts.
        name: Name of the model, for the result.
        output: JSON file for the result. Finished documents are kept beside it until then, and are not read again.
        on_progress: Called as (done, total, what) after some documents.
        settings: `future`, how many last tokens of each piece are read from a smaller cache (64 by default), which
            predicts all but the first; others do not act here.

    Returns:
        The price list, the curves, and a recommendation.

    Raises:
        InputError: A share outside (0, 1), or too little text.
        ModelError: The model has no cache of keys and values that its own attention alone reads.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
        >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
        >>> ids = torch.randint(1, 64, (12, 72), generator=torch.Generator().manual_seed(0))
        >>> sizes = {"documents": 12, "tokens": 72, "settings": Settings(future=8)}
        >>> found = cache(model, ids, **sizes, on_progress=lambda *step: None)
        >>> [row.rule for row in found.rows][:5]
        ['nothing', 'int8', 'int4', '50 % recent', '50 % equal']
    """
    share = require_real("keep", keep, above=0, below=1, advice="It is the share of the tokens that stays.")
    wanted = require_count("documents", documents, least=FEWEST_PIECES)
    settings = given_settings(settings).without("cache", *all_but("future"))
    after = require_count("future", settings.future or FOLLOWING, least=2)
    size = require_count("tokens", tokens, least=after + LEAST_PREFIX)
    model, tokenizer, name = measured_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    _require_cache(model)
    curves, held_out = two_sets(whole_texts(inputs, tokenizer), size, wanted, tokenizer)
    every, prefix = [piece for _, piece in (*curves, *held_out)], size - after
    pricing = Pricing(model, prefix, share, curves, held_out)
    about = tokens_sha256(every), prefix, share
    with Bar(f"pricing {name}", on_progress is not None, lines=False) as bar:
        return kept_result(lambda part: pricing.priced(name, part, on_progress or bar.update), output, model, *about)


def _require_cache(model: nn.Module) -> None:
    """Refuse a model whose caches of keys and values its own layers do not have each for itself."""
    for name, module in named_parts(model):
        if hasattr(module, "kv_lora_rank") or getattr(module, "is_kv_shared_layer", False):
            raise ModelError(
                f"{name} must have a cache of keys and values of its own, got one that several heads or layers read "
                "(MLA, or a shared cache). No price is known."
            )


@dataclass(eq=False)
class Pricing:
    """One price list in the making."""

    model: nn.Module
    prefix: int  # tokens of a prefix
    keep: float  # share of the tokens that is tried beside RATIOS
    curves: Sequence[Piece]  # documents for curves
    held_out: Sequence[Piece]  # documents that are priced
    variants: tuple[Variant, ...] = field(init=False)
    tokens: dict[Variant, Tensor] = field(default_factory=dict[Variant, Tensor], init=False)  # of each cache, (caches,)
    _known: Known = field(default_factory=Known, init=False)

    def __post_init__(self) -> None:
        tried = sorted({*RATIOS, self.keep}, reverse=True)
        ratios = [ratio for ratio in tried if round(ratio * self.prefix) > SINKS + RECENT]
        rounded = [Variant(precision=precision) for precision in BITS]
        evicted = [Variant(ratio, budgets, tokens=tokens) for ratio in ratios for tokens, budgets in _WAYS]
        self.variants = (NOTHING, *rounded, *evicted, *(Variant(ratio, "curves", "int4") for ratio in ratios))

    def priced(self, name: str, keep: Keep, report: Callable[..., None]) -> CachePrices:
        """The price list; `keep` makes or returns a part, `report` is called as `Documents` does."""
        place = len(self.held_out[0][1]), self.prefix
        run = Documents(keep, report, len(self.curves) + len(self.held_out))
        measured = run.made("curves", [place] * len(self.curves), self._curves)
        curves = torch.tensor([[cache["curve"] for cache in text] for text in measured], dtype=torch.float64).mean(0)
        self.set_budgets(measured[0], curves)
        prices = run.made("prices", [place] * len(self.held_out), self._documents)
        tokens = torch.stack([self.tokens[variant] for variant in self.variants], -1)
        caches = [
            cache | {"curve": curve, "tokens": kept}
            for cache, curve, kept in zip(measured[0], lists(curves), lists(tokens), strict=True)
        ]
        shares = (self._bits(caches, variant) / self._bits(caches, WHOLE) for variant in self.variants)
        about = self.prefix, len(self.curves), self.variants, tuple(shares), tuple(caches)
        return CachePrices(name, tuple(map(CutDocument.of, prices)), *about)

    def set_budgets(self, caches: Sequence[dict[str, Any]], curves: Tensor) -> None:
        """Set the tokens of each cache by its layer, what is available, and its curve, (caches, points of GRID)."""
        available = torch.tensor([cache["available"] for cache in caches])
        of_layer = [*Counter(cache["layer"] for cache in caches).values()]
        for variant in (WHOLE, *self.variants):
            tokens = available if variant.budgets == "whole" else equal(available, variant.keep)
            if variant.budgets == "layers":
                tokens = at_layer_curves(available, curves, variant.keep, of_layer)
            elif variant.budgets == "curves":
                tokens = at_curves(available, curves, variant.keep)
            self.tokens[variant] = tokens if variant.keep else torch.zeros_like(tokens)

    def _bits(self, caches: Sequence[dict[str, Any]], variant: Variant) -> int:
        each = zip(caches, lists(self.tokens[variant]), strict=True)
        return sum(cache_bits(variant.precision, cache["available"], kept, *cache["widths"]) for cache, kept in each)

    def read(self, texts: Tensor, cut: int, *watched: Attach) -> tuple[Behind, Tensor]:
        """A model that has read texts (D, L), behind the cut, and its logits there."""
        cutting = Cutting(Forward.of(self.model, texts), cut, self._known, sized=False)
        logits, name = cutting.read(*watched), type(self.model).__name__
        check_head(self.model, logits, texts)
        if not cutting.behind.sure:
            others = (self._known.whole | cutting.behind.refused).items()
            unlike = "other logits than from the whole text, as of states beside them or attention in code of its own"
            got = "; ".join(f"{mixer} {cause}" for mixer, cause in others) or unlike
            raise ModelError(
                f"{name} must mix positions only by attention over keys and values, got {got}. Give a causal language "
                "model of transformers with attention, such as SmolLM2."
            )
        return cutting.behind, logits

    def _curves(self, some: slice) -> list[list[dict[str, Any]]]:
        """The caches of some documents, each with its curve."""
        around, texts = dict[str, Around](), torch.stack([ids for _, ids in self.curves[some]])
        held = zip(*self.read(texts, self.prefix, partial(watch, self.model, around))[0].held.values(), strict=True)
        return [[cache for layer in text for cache in self._caches(layer, around[layer.name])] for text in held]

    def _caches(self, held: HeldAttention, around: Around) -> list[dict[str, Any]]:
        about = {"layer": held.name, "available": held.available, "widths": (held.key.shape[-1], held.value.shape[-1])}
        curves = lists(layer_curves(held, EVICTIONS["expected"].order(held), around))
        return [about | {"head": head, "curve": curve} for head, curve in enumerate(curves)]

    def _documents(self, some: slice) -> list[CutDocument]:
        """Losses of some documents."""
        pieces, known = self.held_out[some], list[CutDocument]()
        behind, logits = self.read(torch.stack([ids for _, ids in pieces]), self.prefix)
        scores = [Scores(whole, ids[self.prefix + 1 :]) for whole, (_, ids) in zip(logits, pieces, strict=True)]
        each = self.each(behind, [score.of for score in scores])
        size = {variant: float(tokens.double().mean()) for variant, tokens in self.tokens.items()}
        for number, (text, ids), score, losses in zip(range(some.start, some.stop), pieces, scores, each, strict=True):
            runs = tuple(CutRun(one.title, one.keep, size[one], *losses[one]) for one in self.variants)
            held = math.nan, math.nan, size[WHOLE], size[WHOLE]
            known.append(CutDocument(number, len(ids), self.prefix, score.loss, *held, runs, text))
        return known

    def each(self, behind: Behind, measures: Sequence[Callable[[Tensor], Any]]) -> list[dict[Variant, Any]]:
        """What logits behind the cut of each text tell with each cache."""
        held = [layer for layer, *_ in behind.held.values()]
        names, caches = [layer.name for layer in held], [len(layer.key) for layer in held]
        tokens = {one: dict(zip(names, torch.split(each, caches), strict=True)) for one, each in self.tokens.items()}
        layers = [layer for texts in behind.held.values() for layer in texts]
        orders = {(name, layer): choice.order(layer) for name, choice in EVICTIONS.items() for layer in layers}

        def remember(layer: HeldAttention, some: Sequence[Variant]) -> Memory:
            seen = [kept(orders[variant.tokens, layer], tokens[variant][layer.name], layer.cut) for variant in some]
            return _memory(layer, torch.stack(seen), [variant.precision for variant in some])

        known: list[dict[Variant, Any]] = [{} for _ in measures]
        for text, variant, logits in behind.each([self.variants] * len(measures), remember):
            known[text][variant] = measures[text](logits)
        return known


def _memory(held: HeldAttention, seen: Tensor, precisions: Sequence[Precision | None]) -> Memory:
    """What stands in the caches of a layer in several runs: what is seen, rounded before others were evicted."""
    if not any(precisions):
        return Memory(seen=seen)
    first = held.cut - held.available

    def stacked(whole: Tensor, rounded: Callable[[Tensor, Precision], Tensor]) -> Tensor:
        parts: dict[Precision | None, Tensor] = {None: whole}
        for precision in BITS:
            parts[precision] = torch.cat([whole[:, :first], rounded(whole[:, first:], precision)], 1)
        return torch.stack([parts[precision] for precision in precisions])

    keys, values = held.key[:, : held.cut], held.value[:, : held.cut]
    return Memory(stacked(values, rounded_values)[:, :, None], stacked(keys, rounded_keys), seen)
