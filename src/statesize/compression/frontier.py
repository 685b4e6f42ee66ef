"""Loss against bytes of state: cuts of several sizes, in float and int8, and what ESS and Gramians say beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statesize.adapters import capture
from statesize.compression.bases import Basis
from statesize.compression.compress import extra_bits, split_text
from statesize.compression.kinds import reducible
from statesize.compression.reducible import Reducible
from statesize.compression.scoring.scores import score
from statesize.interval import Interval
from statesize.measurement import measure
from statesize.texts.tokens import AnyTokenizer

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
    whole = reducible(model)
    calibration, _, held_out = split_text(whole, tokenizer, documents, length)
    made, bases = whole.every_cut(SHARES, calibration)
    before = score(model, held_out.inputs, held_out.targets)
    points = [
        Point(
            cut.way,
            cut.share,
            cut.numbers,
            reducible(cut.model).state_bytes,
            extra_bits(score(cut.model, held_out.inputs, held_out.targets), before, held_out),
        )
        for cut in made
    ]
    return points, _heads(whole, bases, next(calibration.unfilled(_SEQUENCES)))


def _heads(whole: Reducible, bases: Mapping[str, Sequence[Basis]], inputs: Tensor) -> list[Head]:
    """Facts of each head at some inputs (S, L)."""
    found: list[Head] = []
    for layer, mixer in enumerate(capture(whole.model, inputs)):
        own = bases.get(mixer.name, ())
        entropy = measure(mixer.operator, positions=_POSITIONS, outputs=("entropy",)).entropy if own else None
        if entropy is None:
            continue
        # Units that share what is kept of them are a head.
        by_head = entropy.mean((0, 2)).reshape(len(own), -1).mean(1)
        for head, (basis, value) in enumerate(zip(own, by_head, strict=True)):
            kept = [max(1, round(share * whole.state_size)) for share in SHARES]
            found.append(Head(layer, head, float(value), tuple(float(basis.error[states]) for states in kept)))
    return found
