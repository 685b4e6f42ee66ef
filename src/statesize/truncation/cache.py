"""What may a cache lose, and at what price? Curves on some documents, losses and passkeys on the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
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
from statesize.truncation.behind import POSITIONS, Memory
from statesize.truncation.budgets import at_curves, equal
from statesize.truncation.choices import TOKENS
from statesize.truncation.choices.choice import RECENT, SINKS, HeldAttention, kept
from statesize.truncation.choices.rounding import BITS, Precision, cache_bits, rounded_keys, rounded_values
from statesize.truncation.curves import Around, layer_curves, watch
from statesize.truncation.cutting import Cutting
from statesize.truncation.passkeys import Passkey, passkeys
from statesize.truncation.pieces import cut_ids, two_sets
from statesize.truncation.prices import NOTHING, Budgets, CachedHead, CachePrices, Variant, losing_facts
from statesize.truncation.result import CutDocument, CutRun
from statesize.truncation.run import Keep, Scores, check_head, finish, kept_parts

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
    total = len(curves) + len(held_out) + len(hiding)
    with kept_parts(output, model, *about) as keep_part, reporting(on_progress, f"pricing {name}", total) as report:
        done = count(1)
        result = pricing.priced(name, keep_part, lambda what: report(next(done), total, what, pricing.steps.first_left))
    finish(output, result.to_dict())
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
                f"{name} holds a latent (MLA) that all its heads read, not keys and values: no price is known."
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
    steps: Steps = field(init=False)
    _compared: bool = field(default=False, init=False)
    _budgets: dict[tuple[float, Budgets], Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = Steps({"curves": len(self.curves), "prices": len(self.held_out), "passkeys": len(self.needles)})
        least, tried = SINKS + RECENT, {*RATIOS, self.keep}
        self.shared = tuple(sorted((one for one in tried if round(one * self.prefix) > least), reverse=True))
        self.ratios = self.shared if len(self.shared) == len(tried) else (*self.shared, least / self.prefix)
        ways: dict[float, tuple[Budgets, ...]] = dict.fromkeys(self.shared, ("equal", "layers", "curves"))
        every = [NOTHING, *(Variant(precision=precision) for precision in BITS)]
        every += [Variant(ratio, way) for ratio in self.ratios for way in ways.get(ratio, ("equal",))]
        every += [Variant(ratio, ways.get(ratio, ("equal",))[-1], "int4") for ratio in self.ratios]
        self.variants = tuple(every)

    def priced(self, name: str, keep: Keep, step: Callable[[str], None]) -> CachePrices:
        """The price list; `keep` makes or returns a part, `step` is called with what a document was for."""

        def each(kind: str, makes: Sequence[Callable[[], Any]]) -> Iterator[Any]:
            for number, make in enumerate(makes):
                with self.steps.timed(kind):
                    made = keep(f"{kind}-{number:06d}", make)
                step(kind)
                yield made

        measured = list(each("curves", [partial(self._curves, ids) for ids in self.curves]))
        layers: list[dict[str, Any]] = measured[0]["layers"]
        curves = torch.stack([torch.tensor(one["curves"], dtype=torch.float64) for one in measured]).mean(0)
        self._set_budgets(layers, curves)
        hits = list(each("passkeys", [partial(self._found, needle) for needle in self.needles]))
        found = tuple(map(sum, zip(*hits, strict=True)))
        lost = () if self.thorough else losing_facts(self.variants, found, len(self.needles))
        few = evenly(range(len(self.held_out)), max(FEWEST_PIECES, -(-len(self.held_out) // 3)))
        brief = [one for one in self.variants if one is NOTHING or one not in lost]
        tried = [self.variants if number in few else brief for number in range(len(self.held_out))]
        prices = each("prices", [partial(self._document, number, some) for number, some in enumerate(tried)])
        documents = tuple(map(CutDocument.of, prices))
        tokens = torch.stack([self._budgets[ratio, "curves"] for ratio in self.ratios], -1)
        places = [(layer["name"], head, layer["available"]) for layer in layers for head in range(layer["caches"])]
        heads = (
            CachedHead(*place, tuple(curve), tuple(counts))
            for place, curve, counts in zip(places, _lists(curves), _lists(tokens), strict=True)
        )
        shares = tuple(self._bytes_share(layers, one) for one in self.variants)
        return CachePrices(
            name, documents, self.rule, self.prefix, len(self.curves), self.variants, shares, len(self.needles),
            found, tuple(heads), self.ratios,
        )  # fmt: skip

    def _read(self, ids: Tensor, cut: int, watched: Attach | None = None) -> tuple[Cutting, Tensor]:
        """A model that has read ids (L,), and its logits behind the cut."""
        cutting = Cutting(Forward.of(self.model, ids[None]), cut, sized=False)
        logits = cutting.read(watched, compare=not self._compared)
        name, behind = type(self.model).__name__, cutting.behind
        if others := sorted(cutting.whole.keys() | behind.unknown):
            raise ModelError(
                f"{name} must mix positions only by attention over keys and values that its function is given, got "
                f"{', '.join(others)}. No price is known."
            )
        if not behind.sure or not behind.held:
            raise ModelError(
                f"{name} must read several tokens behind its cache as in a whole text, got other logits, as where "
                "states stand beside it. No price is known."
            )
        self._compared = True
        return cutting, logits

    def _curves(self, ids: Tensor) -> dict[str, Any]:
        """Curves of the caches of one document, (caches, points), and what its layers hold."""
        around = dict[str, Around]()
        cutting, _ = self._read(ids, self.prefix, partial(watch, self.model, around))
        made: list[Tensor] = []
        layers: list[dict[str, Any]] = []
        for held in cutting.behind.held.values():
            made.append(layer_curves(held, TOKENS[self.rule].order(held), around[held.name]))
            widths = held.key.shape[-1], held.value.shape[-1]
            layers.append({"name": held.name, "caches": len(held.key), "available": held.available, "widths": widths})
        return {"curves": torch.cat(made), "layers": layers}

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
        tokens, whole, held = iter(_lists(self._budgets[variant.keep, variant.budgets])), 0, 0
        for layer in layers:
            for _ in range(layer["caches"]):
                whole += cache_bits(None, layer["available"], layer["available"], *layer["widths"])
                held += cache_bits(variant.precision, layer["available"], next(tokens), *layer["widths"])
        return held / whole

    def _document(self, number: int, tried: Sequence[Variant]) -> CutDocument:
        """Losses of one document; NaN for variants that are not tried."""
        text, ids = self.held_out[number]
        cutting, logits = self._read(ids, self.prefix)
        answers = cut_ids(ids, self.prefix)
        check_head(self.model, logits, answers)
        scores, kept_tokens = (
            Scores(logits, answers),
            {key: float(one.double().mean()) for key, one in self._budgets.items()},
        )
        known = dict(zip(tried, self._each(cutting, tried, scores.of), strict=True))
        runs = tuple(
            CutRun(one.title, one.keep, kept_tokens[one.keep, one.budgets], *known.get(one, (math.nan, math.nan)))
            for one in self.variants
        )
        size = None
        if self.tokenizer is not None:
            size = len(str(self.tokenizer.decode(cast("list[int]", answers.tolist()))).encode())
        facts = math.nan, math.nan, kept_tokens[1.0, "whole"], kept_tokens[1.0, "whole"]
        return CutDocument(number, len(ids), self.prefix, scores.loss, *facts, runs, text, size)

    def _found(self, needle: Passkey) -> list[int]:
        """Whether the whole cache finds a passkey, and each variant."""
        cutting, logits = self._read(torch.cat([needle.prefix, needle.following], 1)[0], needle.prefix.shape[1])
        found = self._each(cutting, self.variants, needle.found, last=needle.answer)
        return [int(needle.found(logits)), *map(int, found)]

    def _each(
        self, cutting: Cutting, variants: Sequence[Variant], measure: Callable[[Tensor], Any], last: int = 0
    ) -> list[Any]:
        """What logits behind the cut tell with each cache."""
        behind, cut = cutting.behind, cutting.cut
        orders = {held.name: TOKENS[self.rule].order(held) for held in behind.held.values()}
        available = torch.tensor([held.available for held in behind.held.values() for _ in held.key])
        # Where each layer has one cache, budgets by layer and by curves are the same.
        caches: list[_Cache] = [(one.precision, tuple(_lists(self._tokens(one, available, cut)))) for one in variants]
        different, made = list(dict.fromkeys(caches)), dict[_Cache, Any]()
        at_once = max(1, POSITIONS // (cutting.forward.length - cut))
        for some in (different[first : first + at_once] for first in range(0, len(different), at_once)):
            counts = torch.tensor([tokens for _, tokens in some]).split([len(one) for one in orders.values()], -1)  # pyright: ignore[reportUnknownVariableType]
            each = dict(zip(orders, counts, strict=True))  # pyright: ignore[reportUnknownArgumentType]
            remember = partial(_memory, orders=orders, counts=each, precisions=[precision for precision, _ in some])
            made |= zip(some, map(measure, behind.logits(remember, len(some), last)), strict=True)
        return [made[one] for one in caches]

    def _tokens(self, variant: Variant, available: Tensor, prefix: int) -> Tensor:
        """How many tokens each cache of a prefix keeps, (caches,); budgets are in proportion to its length."""
        if variant.budgets == "whole":
            return available
        budgets = self._budgets[variant.keep, variant.budgets]
        return (budgets * (prefix / self.prefix)).round().long().minimum(available)


def _lists(numbers: Tensor) -> list[Any]:
    return cast("list[Any]", numbers.tolist())


def _memory(
    held: HeldAttention, orders: dict[str, Tensor], counts: dict[str, Tensor], precisions: Sequence[Precision | None]
) -> Memory:
    """What stands in the cache of a layer in several runs: tokens by counts (R, K), rounded before they are evicted."""
    seen = kept(orders[held.name], counts[held.name], held.cut)
    if not any(precisions):
        return Memory(seen=seen)
    first = held.cut - held.available
    keys, values = held.key[:, : held.cut], held.value[:, : held.cut]
    parts: dict[Precision | None, tuple[Tensor, Tensor]] = {None: (keys, values)}
    for precision in filter(None, dict.fromkeys(precisions)):
        rounded = rounded_keys(keys[:, first:], precision), rounded_values(values[:, first:], precision)
        parts[precision] = cast("tuple[Tensor, Tensor]", tuple(
            torch.cat([whole[:, :first], part], 1) for whole, part in zip((keys, values), rounded, strict=True)
        ))  # fmt: skip
    keys, values = (torch.stack([parts[one][which] for one in precisions]) for which in (0, 1))
    return Memory(values[:, :, None], keys, seen)
