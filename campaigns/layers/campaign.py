"""Random layers, one after another: T of every head is the definition's, or the layer is refused."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import statesize as ss
from campaigns.layers import gated, recurrent, softmax
from statesize.codes import joined

WIDTH = 8
TOKENS = 40
EXACT = 1e-8
"""The largest difference from the definition, relative to the largest value."""

CAUSAL: dict[str, tuple[float, Callable[[Random, int, int], nn.Module]]] = {
    "attention": (6.0, softmax.drawn_attention),
    "linear attention": (1.5, recurrent.drawn_linear),
    "gated memory": (1.0, recurrent.drawn_memory),
    "recurrence": (1.0, recurrent.drawn_recurrence),
    "convolution": (1.0, recurrent.drawn_convolution),
    "chain": (1.5, recurrent.drawn_chain),
    "gated block": (2.5, gated.drawn_block),
}
"""Generators of layers by their kind, each with its weight."""

NOT_CAUSAL: dict[str, tuple[float, Callable[[Random, int, int], nn.Module]]] = {
    "a later position": (1.0, lambda *sizes: softmax.drawn_attention(*sizes, later=True)),
    "columns": (0.4, softmax.drawn_columns),
    "gathered": (1.0, recurrent.drawn_gathered),
}
"""The same of layers that must be refused."""


class Model(nn.Module):
    """Layers with a residual around each, and a normalisation before, without which some grow beyond float64."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(TOKENS, WIDTH), nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """The last hidden state, (S, L, WIDTH)."""
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = hidden + layer(functional.layer_norm(hidden, (WIDTH,)))
        return hidden


@dataclass(frozen=True)
class Draw:
    """A model and a text.

    Attributes:
        kind: Of its layers.
        causal: Whether its layers are causal; the others must be refused.
        model: The model.
        ids: The text, (1, L).
        about: Both in words.
    """

    kind: str
    causal: bool
    model: Model
    ids: Tensor
    about: str

    @classmethod
    def of(cls, seed: int, number: int) -> Draw:
        """One draw of a seed."""
        chance = Random(f"{seed} {number}")  # noqa: S311, no secrets
        causal = chance.random() > 0.2
        kinds = CAUSAL if causal else NOT_CAUSAL
        kind = chance.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        length = 200 if chance.random() < 0.02 else chance.randint(8, chance.choice((24, 80)))
        layers = 2 if chance.random() < 0.25 else 1
        repeated = chance.random() < 0.25
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chance.randrange(2**31))
            model = Model([kinds[kind][1](chance, WIDTH, length) for _ in range(layers)])
            ids = torch.randint(0, TOKENS, (1, 1 if repeated else length)).expand(1, length).contiguous()
        settings = [
            {name: value for name, value in vars(layer).items() if name[0] != "_" and name != "training"}
            for layer in model.layers
        ]
        text = "one repeated token" if repeated else "random tokens"
        return cls(kind, causal, model, ids, f"{kind}, {length} positions, {text}: {settings}")

    def expected(self) -> dict[str, list[np.ndarray]]:
        """The T that a layer may have, of each channel that it mixes, from what enters the layer in the model."""
        found: dict[str, list[np.ndarray]] = {}

        def entering(name: str) -> Callable[..., None]:
            def hook(layer: Any, args: tuple[Tensor, ...]) -> None:
                defined = layer.definition(args[0][0].double().numpy())
                several = defined if isinstance(defined, tuple) else (defined,)
                found[name] = [np.repeat(T, layer.leave.in_features // len(T), 0) for T in several]

            return hook

        handles = [
            layer.register_forward_pre_hook(entering(f"layers.{number}"))
            for number, layer in enumerate(self.model.layers)
        ]
        with torch.no_grad():
            self.model(self.ids)
        for handle in handles:
            handle.remove()
        return found


def difference(found: np.ndarray, right: np.ndarray) -> float:
    """How far T of channels are from the definition's, in whatever order, relative to the largest value."""
    if found.shape != right.shape:
        return float("inf")
    left, farthest = list(right), 0.0
    for T in found:
        distances = [float(np.abs(T - other).max()) for other in left]
        nearest = int(np.argmin(distances))
        farthest = max(farthest, distances[nearest])
        del left[nearest]
    return farthest / float(np.abs(right).max())


@dataclass(frozen=True)
class Outcome:
    """What came of a draw: "measured" or the cause of its refusal, and what is wrong with it."""

    result: str
    problems: tuple[str, ...] = ()


def outcome(draw: Draw) -> Outcome:
    """Capture a draw's mixers, and compare them."""
    try:
        capture = ss.capture(draw.model, draw.ids)
        items = list(capture)
        found = {item.name: np.repeat(dense(item), item.multiplicity, 0) for item in items}
    except ss.StatesizeError as error:
        return Outcome(cause(str(error)))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome("failed", (f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})",))
    if not draw.causal:
        return Outcome(
            "measured", tuple(f"{item.name} is not causal and was measured as {item.kind}" for item in items)
        )
    right = draw.expected()
    problems = [f"{name} is no mixer of the model" for name in found.keys() - right.keys()]
    for item in items:
        if item.name not in right:
            continue
        if item.kind == "derivative":
            problems.append(f"{item.name} was measured by its derivative: {joined(item.notes)}")
            continue
        if (share := largest_share(item)) > 1:
            problems.append(f"{item.name} ({item.kind}) carries {share:.2f} of its ceiling")
        # The row's own value never enters H_i: where a layer adds it last, T may end before. A softmax' map has it.
        last = 0 if draw.kind == "attention" else -1
        own = np.tril(found[item.name], last)
        off = min(difference(own, np.tril(T, last)) for T in right[item.name])
        if off > EXACT:
            size = f"{item.units} units of {item.multiplicity} channels"
            problems.append(f"{item.name} ({item.kind}, {size}) is {off:.1e} off its definition. {joined(item.notes)}")
    missing = [
        cause(str(capture.skipped.get(name, "neither measured nor named"))) for name in right.keys() - found.keys()
    ]
    return Outcome(missing[0] if missing else "measured", tuple(problems))


def largest_share(item: Any) -> float:
    """The largest ESS of a mixer at any cut, by entropy or rank, as a part of what limits it; 1 but for rounding."""
    found = ss.measure(item.operator, relative_tolerances=[1e-9])
    most = found.ceiling.clamp(min=1)
    shares = (found.entropy / most, found.relative_count.squeeze(-1) / most)
    return max(float(share.max()) for share in shares) - 1e-9


def dense(item: Any) -> np.ndarray:
    """T of one sequence's units, (units, L, L)."""
    return item.operator.dense()[0].detach().double().numpy()


def cause(message: str) -> str:
    """A refusal's words without its numbers and its advice."""
    first = re.sub(r"^Mixer [\w.]+,? ?|\(first .*?\)", "", message)
    return "refused: " + re.sub(r"-?\d[\d.e+-]*", "#", first)[:110].strip()


@dataclass(frozen=True)
class Finding:
    """A draw with which something was wrong.

    Attributes:
        number: Of the draw; with the campaign's seed it makes it again.
        about: The layers and the text.
        problem: What was wrong.
    """

    number: int
    about: str
    problem: str


@dataclass
class Campaign:
    """Random layers of one seed.

    Attributes:
        seed: Of all draws.
        measured: Draws whose every layer was measured rightly, by kind.
        refused: Refusals that were due, and others, by kind and cause.
        findings: Wrong numbers.
    """

    seed: int = 0
    measured: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def run(self, numbers: Iterable[int], begun: Callable[[int], object] = lambda _: None) -> None:
        """Measure some draws; `begun` is told each before it is made."""
        for number in numbers:
            begun(number)
            draw = Draw.of(self.seed, number)
            came = outcome(draw)
            if came.problems:
                self.findings.append(Finding(number, draw.about, "; ".join(came.problems)))
            elif came.result == "measured":
                self.measured[draw.kind] += 1
            else:
                self.refused[f"{draw.kind}, {came.result}"] += 1
