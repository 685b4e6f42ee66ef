"""Random calls of the functions that work on models and on profiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from oracles import exact
from transformers import LlamaConfig, LlamaForCausalLM

import experiments.variation.mixers  # noqa: F401
import statesize as ss
from campaigns.fuzz.call import Call
from campaigns.fuzz.hostile import Source
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.truncation.choices import TOKENS

VOCABULARY = 32
_NAMES = ("inputs", "input_ids", "Sequence", "tokens", "token", "positions", "layers", "tolerances", "channels", "seed")


@cache
def model(pattern: str) -> LanguageModel:
    """A small model, the same at each call."""
    config = ModelConfig(pattern, VOCABULARY, width=16, heads=2, layers=2, key_size=4, convolution_size=2)
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


@cache
def whole_profile() -> ss.Profile:
    """A profile to read from."""
    return ss.profile(model("gla,sa"), torch.arange(14) % VOCABULARY)


def _ids(source: Source) -> tuple[Any, bool]:
    """Token ids, and whether they are good."""
    length = source.whole(2, 14)
    good = [source.chance.randrange(VOCABULARY) for _ in range(length)]
    tensor = torch.tensor(good)
    choices: list[tuple[Any, bool]] = [
        (tensor, True),
        (tensor.to(torch.int32), True),
        (tensor.expand(2, -1), True),
        (torch.stack([tensor, tensor], -1)[:, 0], True),
        (torch.stack([tensor, tensor.flip(0)]), True),
    ]
    bad: list[Any] = [
        tensor.double(), tensor - 40, tensor + 10**6, torch.tensor([]), torch.tensor([1]), tensor[None, None],
        torch.zeros(0, 5, dtype=torch.int64), tensor.bool(), None, 3, object(), [[[1, 2]]], [1, 2.5], tensor.to("meta"),
        [float("nan"), 1.0], [10**30, 1], b"text", {}, (), [[]], tensor.to(torch.complex64), True,
    ]  # fmt: skip
    return (source.chance.choice(bad), False) if source.maybe(0.5) else source.chance.choice(choices)


def profile_call(source: Source) -> Call:
    """`profile`."""
    pattern = source.chance.choice(("gla,sa", "la", "wla", "s4d"))
    ids, good = _ids(source)
    options: dict[str, Any] = {}
    doubtful = False
    for name in ("tolerances", "positions", "layers", "channels", "past", "seed", "memory", "future"):
        if source.maybe(0.06):
            options[name] = source.no_number()
            doubtful = True

    def check(found: Any) -> list[str]:
        return [] if doubtful else _wrong_profile(found, pattern, ids)

    refusal = "maybe" if doubtful and good else "never" if good else "always"
    about = f"profile {pattern} {ids!r:.80} {options}"
    names = (*_NAMES, *options)
    return Call(lambda: ss.profile(model(pattern), ids, settings=ss.Settings(**options)), check, refusal, names, about)


def _wrong_profile(found: ss.Profile, pattern: str, ids: torch.Tensor) -> list[str]:
    """Entropies against those of the captured operators' own T."""
    rows = torch.atleast_2d(ids).long()
    for captured, name in zip(ss.capture(model(pattern), rows[:1]), found.mixers, strict=True):
        T = exact.wide(captured.operator.to(torch.float64).dense())
        truth = exact.spectra(T, list(range(1, T.shape[-1])), None, None)
        right = exact.effective_rank(truth.values)[0]
        given = found.mixer(name)["entropy"].values[0]
        if given.shape[0] != right.shape[0] or np.abs(given[:, 1 : T.shape[-1]] - right).max() > 1e-3 * right.max():
            return [f"{name}: entropies are not those of its operator"]
    return []


def capture_call(source: Source) -> Call:
    """`capture`: what comes is causal and finite."""
    pattern = source.chance.choice(("gla,sa", "la", "wla", "s4d"))
    ids, good = _ids(source)
    doubtful = source.maybe(0.2)
    options: dict[str, Any] = {"layers": source.no_number()} if doubtful else {}

    def check(found: list[ss.adapters.Captured]) -> list[str]:
        for captured in found:
            T = captured.operator.dense()
            if not bool(torch.isfinite(T).all()) or bool(T.triu(1).any()):
                return [f"{captured.name}: T is not causal or not finite"]
        return [] if found or doubtful else ["nothing was captured"]

    ids = ids if not isinstance(ids, torch.Tensor) or ids.ndim != 1 else ids[None]
    about = f"{pattern} {ids!r:.80} {options}"
    refusal = "maybe" if doubtful and good else "never" if good else "always"
    return Call(lambda: list(ss.capture(model(pattern), ids, **options)), check, refusal, (*_NAMES, "layer"), about)


def reading_call(source: Source) -> Call:
    """`compare` of a profile, in any company."""
    held = whole_profile()
    value = source.no_number() if source.maybe(0.7) else source.chance.uniform(0.5, 1)
    kind = source.chance.choice(("compare", "mixer"))
    profiles: Any = source.chance.choice(([held], [held, held], [], None, 3, [None], held, [held, "x"]))
    functions = {
        "compare": lambda: ss.compare(profiles),
        "mixer": lambda: held.mixer(value),
    }
    names = ("profiles", "profile", "mixer", "loss", "metric")
    about = f"{kind} {value!r} {profiles!r:.60}"
    return Call(functions[kind], lambda found: [] if found is not None else ["None"], "maybe", names, about)


def forward_call(source: Source) -> Call:
    """A model's own methods."""
    pattern = source.chance.choice(("gla,sa", "la", "s4d", "s6,gla-s6", "deltanet,wla"))
    ids, good = _ids(source)
    value = source.no_number()
    batched = isinstance(ids, torch.Tensor) and ids.ndim == 2
    if isinstance(ids, torch.Tensor) and ids.ndim == 1 and source.maybe(0.8):
        ids, batched = ids[None], True
    held = model(pattern)
    first = ids[:, 0] if batched and ids.numel() else ids
    # None would draw from torch's own generator, as it is said to.
    generator = (3 if value is None else value) if source.maybe(0.3) else torch.Generator().manual_seed(0)
    kinds: dict[str, tuple[Callable[[], Any], bool]] = {
        "forward": (lambda: held(ids), good and batched),
        "step": (
            lambda: held.step(first, held.initial_caches(len(ids) if good else 1)),
            False,
        ),
        "initial_caches": (lambda: held.initial_caches(value), False),
        "LanguageModel": (
            lambda: LanguageModel(held.config, generator),
            isinstance(generator, torch.Generator),
        ),
        "LanguageModel of": (lambda: LanguageModel(value), False),
    }
    kind = source.chance.choice(list(kinds))
    run, fine = kinds[kind]
    one = kind == "forward" and isinstance(ids, torch.Tensor) and ids.numel() == 1
    doubtful = one or kind in {"initial_caches", "step"}

    def check(found: Any) -> list[str]:
        tensor = found[0] if isinstance(found, tuple) else found
        return (
            []
            if not isinstance(tensor, torch.Tensor) or bool(torch.isfinite(tensor).all())
            else ["logits are not finite"]
        )

    names = (*_NAMES, "model", "batch", "config", "generator")
    about = f"{kind} {pattern} {ids!r:.60} {value!r:.40}"
    return Call(run, check, "never" if fine else "maybe" if doubtful else "always", names, about)


def network_call(source: Source) -> Call:
    """`network_ess`, of few tokens."""
    pattern = source.chance.choice(("gla,sa", "s4d"))
    ids, good = _ids(source)
    doubtful = source.maybe(0.3)
    name = source.chance.choice(("positions", "start", "end", "accuracy", "method", "memory"))
    options: dict[str, Any] = {"positions": 1} | ({name: source.no_number()} if doubtful else {})
    settings = {"memory": options.pop("memory")} if "memory" in options else {}
    batched = ids[None] if isinstance(ids, torch.Tensor) and ids.ndim == 1 else ids
    single = good and batched.shape[0] == 1 and batched.shape[1] > 1

    def run() -> Any:
        return ss.network_ess(model(pattern), batched, **options, settings=ss.Settings(**settings))

    def check(found: Any) -> list[str]:
        (low, high), entropy = found.interval[0].tolist(), found.entropy[0].item()
        if not low <= entropy <= high or not 0 <= entropy <= found.dimension[0].item():
            return [f"entropy {entropy} in {low} … {high}"]
        return []

    refusal = "maybe" if doubtful and single else "never" if single else "always"
    about = f"network_ess {pattern} {ids!r:.80} {options} {settings}"
    return Call(run, check, refusal, (*_NAMES, *options, *settings), about)


def truncate_call(source: Source) -> Call:
    """`truncate`, of pieces of four tokens."""
    pattern = source.chance.choice(("gla,sa", "s4d", "deltanet,wla"))
    ids, good = _ids(source)
    doubtful = source.maybe(0.3)
    name = source.chance.choice(("documents", "tokens", "positions", "at"))
    options: dict[str, Any] = {"documents": 2, "tokens": 4} | ({name: source.no_number()} if doubtful else {})
    settings = {"positions": options.pop("positions")} if "positions" in options else {}
    long = good and isinstance(ids, torch.Tensor) and ids.shape[-1] >= 4

    def check(result: Any) -> list[str]:
        losses = [run.loss for one in result.documents for run in one.runs]
        kept = [run.kept for one in result.documents for run in one.runs if run.rule == "ess"]
        if not all(map(math.isfinite, losses)) or kept != sorted(kept[:3]) * len(result.documents):
            return [f"losses {losses}, kept {kept}"]
        ceilings = [one.ceiling for one in result.documents]
        return [] if max(ceilings) <= 4 else [f"ceilings {ceilings}"]

    refusal = "maybe" if doubtful or not (long or not good) else "never" if long else "always"
    about = f"truncate {pattern} {ids!r:.80} {options} {settings}"

    def run() -> Any:
        return ss.truncate(model(pattern), ids, **options, settings=ss.Settings(**settings))

    return Call(run, check, refusal, (*_NAMES, *options, *settings), about)


@cache
def transformer() -> LlamaForCausalLM:
    """A small model of transformers, whose two heads read one cache."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def cache_call(source: Source) -> Call:
    """The price list of a cache, of the shortest pieces."""
    ids, good = _ids(source)
    if good:
        ids = torch.tensor([source.chance.randrange(VOCABULARY) for _ in range(6 * 34)])
    doubtful = source.maybe(0.5)
    name = source.chance.choice(("documents", "tokens", "future", "keep", "needles", "rule"))
    options: dict[str, Any] = {"documents": 6, "tokens": 34, "future": 2}
    options |= {name: source.no_number()} if doubtful else {"rule": source.chance.choice(tuple(TOKENS))}

    def check(found: Any) -> list[str]:
        if not doubtful and len(found.documents) != 4:
            return [f"{len(found.documents)} documents are priced"]
        odd = [row for row in found.rows if not math.isfinite(row.excess.value) or not 0 <= row.stored < 1]
        return [f"{row}" for row in odd]

    refusal = "maybe" if doubtful and good else "never" if good else "always"
    about = f"cache {ids!r:.80} {options}"
    names, future = (*_NAMES, *options), options.pop("future")

    def run() -> Any:
        return ss.cache(transformer(), ids, **options, settings=ss.Settings(future=future))

    return Call(run, check, refusal, names, about)
