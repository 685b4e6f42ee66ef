"""Random layers, one after another: T of every channel is the definition's, or the layer is refused."""

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
from campaigns.layers.gated import drawn_block
from campaigns.layers.mixings import Attention
from campaigns.layers.written import Expected, Written
from statesize.codes import NOTHING_LOST, Code, joined

WIDTH = 8
TOKENS = 40
EXACT = 1e-6
"""The largest difference from the definition, relative to the largest value: what enters a part is of float32."""

TOLD = {Code.PART, Code.BEFORE_PARTS, Code.MIXED_BEFORE, Code.SEEN}
"""What tells of other mixing than that in T."""


class Model(nn.Module):
    """Layers with a residual around each, and a normalisation before, without which some grow beyond float64."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(TOKENS, WIDTH), nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """The last hidden state, (S, L, WIDTH)."""
        hidden = self.embedding(tokens)
        for layer in self.layers:
            normed = functional.layer_norm(hidden, (WIDTH,))
            hidden = hidden + (layer.mixed(normed) if isinstance(layer, Written) else layer(normed))
        return hidden


@dataclass(frozen=True)
class Draw:
    """A model and a text.

    Attributes:
        kind: "gated block" or "written".
        causal: Whether its layers are causal; the others must be refused.
        model: The model.
        ids: The texts, (S, L).
        about: Both in words.
    """

    kind: str
    causal: bool
    model: Model
    ids: Tensor
    about: str

    @classmethod
    def of(cls, seed: int, number: int) -> Draw:
        """One draw of a seed: of gated blocks, or of layers as users write them."""
        return cls.blocks(seed, number // 2) if number % 2 else cls.written(1000 * seed + number // 2)

    @classmethod
    def blocks(cls, seed: int, number: int) -> Draw:
        """One or two gated blocks over a text, which may be long or one repeated token."""
        chance = Random(f"{seed} {number}")  # noqa: S311, no secrets
        length = 200 if chance.random() < 0.02 else chance.randint(8, chance.choice((24, 80)))
        count, repeated = 2 if chance.random() < 0.25 else 1, chance.random() < 0.25
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chance.randrange(2**31))
            model = Model([drawn_block(chance, WIDTH) for _ in range(count)])
            ids = torch.randint(0, TOKENS, (1, 1 if repeated else length)).expand(1, length).contiguous()
        settings = [
            {name: value for name, value in vars(layer).items() if name[0] != "_" and name != "training"}
            for layer in model.layers
        ]
        text = "one repeated token" if repeated else "random tokens"
        return cls("gated block", True, model, ids, f"gated block, {length} positions, {text}: {settings}")

    @classmethod
    def written(cls, number: int) -> Draw:
        """One draw of the layers as users write them."""
        chance = Random(f"written {number}")  # noqa: S311, no secrets
        length = chance.randint(9, 24)
        texts = chance.choice((1, 1, 1, 2, 3, length))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            layer = Written(chance, length)
            model, ids = Model([layer]).eval(), torch.randint(0, TOKENS, (texts, length))
            if isinstance(layer.mixing, Attention) and layer.mixing.kept:  # no ties
                ids = torch.stack([torch.randperm(TOKENS)[:length] for _ in range(texts)])
        parts = [(type(part).__name__, vars(part)) for part in (layer, layer.mixing, layer.second) if part is not None]
        settings = {
            kind: {name: value for name, value in fields.items() if isinstance(value, str | int) and value is not False}
            for kind, fields in parts
        }
        return cls("written", not layer.leak, model, ids, f"written, {texts} texts of {length} positions: {settings}")

    def expected(self) -> dict[str, list[Expected]]:
        """What may be measured of each layer and text, from what enters the layer in the model."""
        found: dict[str, list[Expected]] = {}

        def entering(name: str) -> Callable[..., None]:
            def hook(layer: Any, args: tuple[Tensor, ...]) -> None:
                if isinstance(layer, Written):
                    found[name] = layer.definition(args[0])
                    return
                defined = layer.definition(args[0][0].double().numpy())
                repeats = [np.repeat(T, layer.leave.in_features // len(T), 0) for T in defined]
                found[name] = [Expected([torch.from_numpy(T) for T in repeats], [], None)]

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
    if found.shape[1:] != right.shape[1:] or max(len(found), len(right)) % min(len(found), len(right)):
        return float("inf")
    units = max(len(found), len(right))
    found, right = (np.repeat(T, units // len(T), 0) for T in (found, right))
    left, farthest = list(right), 0.0
    for T in found:
        distances = [float(np.abs(T - other).max()) for other in left]
        nearest = int(np.argmin(distances))
        farthest = max(farthest, distances[nearest])
        del left[nearest]
    return farthest / float(np.abs(right).max())


def outcome(draw: Draw) -> tuple[str, list[str]]:
    """Capture a draw's mixers, and compare them: "measured" or the cause of the refusal, and what is wrong with it."""
    try:
        capture = ss.capture(draw.model, draw.ids)
        items = list(capture)
        for item in items:
            item.operator.dense()
    except ss.StatesizeError as error:
        without = draw.causal and not any(text.right for texts in draw.expected().values() for text in texts)
        return "measured" if without else cause(str(error)), []
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "failed", [f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"]
    if not draw.causal:
        untold = [item for item in items if all(note.code is not Code.NOT_CAUSAL for note in item.notes)]
        problems = [f"{item.name} is not causal and was measured as {item.kind}" for item in untold]
        return "told as not causal", problems
    refused = [name for name, why in capture.skipped.items() if why.code not in NOTHING_LOST]
    results, problems = set[str](), list[str]()
    for name, texts in draw.expected().items():
        rows = [item for item in items if f"{item.name}.".startswith((f"{name}.", f"{name}@"))]
        result, faults = judged(rows, texts, told=any(part.startswith(name) for part in refused))
        results.add(result)
        problems += faults
    return "measured" if results == {"measured"} else max(results - {"measured"}), problems


def judged(rows: list[Any], texts: list[Expected], *, told: bool) -> tuple[str, list[str]]:
    """What came of a layer, and what is wrong with its rows; `told` says whether a part of it was refused."""
    linear = [row for row in rows if row.kind != "derivative"]
    told = told or any(note.code in TOLD for row in rows for note in row.notes)
    if not linear:
        return ("measured" if rows and not texts[0].right else "refused: derivative" if rows else "refused"), []
    problems, whole = list[str](), False
    for row in linear:
        if (share := largest_share(row)) > 1:
            problems.append(f"{row.name} ({row.kind}) carries {share:.2f} of its ceiling")
        right, part = (off(row, [getattr(text, kind) for text in texts]) for kind in ("right", "parts"))
        whole = whole or right <= EXACT
        if min(right, part) > EXACT:
            size = f"{row.units} units of {row.multiplicity} channels"
            problems.append(f"{row.name} ({row.kind}, {size}) is {right:.1e} off its definition. {joined(row.notes)}")
    if not whole and not problems and not told and len(linear) == 1:
        problems.append("A part was measured, and it is not told that other mixing is left out.")
    if whole and texts[0].told and not told and len(linear) == 1:
        problems.append("Other mixing is not told.")
    if whole and texts[0].told is False and told:
        problems.append(f"It is told that something is left out of T: {joined(rows[0].notes)}")
    return "measured" if whole or len(linear) > 1 else "refused: in part", problems


def off(row: Any, texts: list[list[Tensor]]) -> float:
    """How far T of some text is at least from each of its definitions, below the diagonal."""
    found = row.operator.dense().detach().double().numpy().repeat(row.multiplicity, 1)
    if len(found) != len(texts):
        return float("inf")
    # The row's own value never enters H_i: where a layer adds it last, T may end before.
    return max(
        min((difference(np.tril(T, -1), np.tril(right.numpy(), -1)) for right in definitions), default=float("inf"))
        for T, definitions in zip(found, texts, strict=True)
    )


def largest_share(item: Any) -> float:
    """The largest ESS of a mixer at any cut, by entropy or rank, as a part of what limits it; 1 but for rounding."""
    found = ss.measure(item.operator, relative_tolerances=[1e-9])
    most = found.ceiling.clamp(min=1)
    shares = (found.entropy / most, found.relative_count.squeeze(-1) / most)
    return max(float(share.max()) for share in shares) - 1e-9


def cause(message: str) -> str:
    """A refusal's words without its numbers and its advice."""
    first = re.sub(r"^Mixer [\w.]+,? ?|\(first .*?\)", "", message)
    return "refused: " + re.sub(r"-?\d[\d.e+-]*", "#", first)[:110].strip()


@dataclass
class Campaign:
    """Random layers of one seed.

    Attributes:
        seed: Of all draws.
        measured: Draws whose every layer was measured rightly, by kind.
        refused: Refusals that were due, and others, by kind and cause.
        findings: What was wrong: the number of the draw, which makes it again, its layers and text, and the problem.
    """

    seed: int = 0
    measured: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def run(self, numbers: Iterable[int]) -> None:
        """Measure some draws."""
        for number in numbers:
            draw = Draw.of(self.seed, number)
            result, problems = outcome(draw)
            if problems:
                self.findings.append({"number": number, "about": draw.about, "problem": "; ".join(problems)})
            elif result == "measured":
                self.measured[draw.kind] += 1
            else:
                self.refused[f"{draw.kind}, {result}"] += 1
