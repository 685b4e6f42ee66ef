"""Loss against bytes of state: cuts of several sizes, in float and int8, and what ESS and Gramians say beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from statesize.adapters import capture
from statesize.compression.bases import Basis
from statesize.compression.compress import extra_bits, split_text, state_bytes, state_size
from statesize.compression.proposals import Ranking
from statesize.compression.scoring.scores import BATCH, score
from statesize.compression.scoring.windows import Windows
from statesize.compression.shrinking import rounded_model
from statesize.compression.state_spaces import bases_of_groups, smaller_state_space
from statesize.interval import Interval
from statesize.measurement import measure
from statesize.mixers.config import ROUNDED
from statesize.mixers.model import LanguageModel
from statesize.texts.tokens import AnyTokenizer

Made: TypeAlias = tuple[str, float, str, nn.Module]
"""A cut: its way, the share that is kept, its numbers, and the model."""

SHARES = (0.25, 0.5, 0.75)
_SEQUENCES = 4
_POSITIONS = 4


@dataclass(frozen=True)
class Point:
    """One way to make states smaller, and its cost."""

    way: str
    share: float  # of the numbers of state
    numbers: str  # "float", as the model has them, or "int8"
    state_bytes: int
    difference: Interval  # bits a byte


@dataclass(frozen=True)
class Head:
    """What is known without a cut of one head, or of all units that keep the same numbers."""

    layer: int
    head: int
    ess: float  # entropy-ESS, the mean over positions and sequences
    missed: tuple[float, ...]  # share of its output's energy that a cut to each of SHARES misses, by its Gramians


@torch.no_grad()
def frontier(
    model: nn.Module, tokenizer: AnyTokenizer, documents: list[str], length: int = 256
) -> tuple[list[Point], list[Head]]:
    """The cost of all ways on the held-out documents of `compress`."""
    calibration, _, held_out = split_text(model, tokenizer, documents, length)
    made, bases = _own(model, calibration) if isinstance(model, LanguageModel) else _state_space(model, calibration)
    before = score(model, held_out.inputs, held_out.targets)
    points = [
        Point(
            way,
            share,
            numbers,
            state_bytes(cut),
            extra_bits(score(cut, held_out.inputs, held_out.targets), before, held_out),
        )
        for way, share, numbers, cut in made
    ]
    return points, _heads(model, bases, next(calibration.unfilled(_SEQUENCES)))


def _own(model: LanguageModel, calibration: Windows) -> tuple[list[Made], dict[str, Sequence[Basis]]]:
    """The cuts of a model of statesize by all ways, and the bases of its heads by the name of the layer's mixer."""
    ranking = Ranking.of(model, calibration)
    n, heads = model.config.key_size, sum(map(len, ranking.bases.values()))
    rounds = set(model.config.pattern) <= ROUNDED
    made: list[Made] = [("uncut", 1.0, "int8", rounded_model(model))] if rounds else []
    for share in SHARES:
        for way, cut in ranking.cuts(max(heads, round(share * n * heads))).items():
            made += [(way, share, "float", cut), *([(way, share, "int8", rounded_model(cut))] if rounds else [])]
    return made, {f"layers.{layer}.mixer": own for layer, own in ranking.bases.items()}


def _state_space(model: nn.Module, calibration: Windows) -> tuple[list[Made], dict[str, Sequence[Basis]]]:
    """The same of Mamba or Mamba-2 of transformers."""
    bases = bases_of_groups(model, calibration.unfilled(BATCH))
    sizes = {share: max(1, round(share * state_size(model))) for share in SHARES}
    made = [("equal sizes", share, "float", smaller_state_space(model, bases, kept)) for share, kept in sizes.items()]
    return made, dict(bases)


def _heads(model: nn.Module, bases: Mapping[str, Sequence[Basis]], inputs: Tensor) -> list[Head]:
    """Facts of each head at some inputs (S, L)."""
    found: list[Head] = []
    for layer, mixer in enumerate(capture(model, inputs)):
        own = bases.get(mixer.name, ())
        entropy = measure(mixer.operator, positions=_POSITIONS, outputs=("entropy",)).entropy if own else None
        if entropy is None:
            continue
        # Units that share what is kept of them are a head.
        by_head = entropy.mean((0, 2)).reshape(len(own), -1).mean(1)
        for head, (basis, value) in enumerate(zip(own, by_head, strict=True)):
            kept = [max(1, round(share * state_size(model))) for share in SHARES]
            found.append(Head(layer, head, float(value), tuple(float(basis.error[states]) for states in kept)))
    return found
