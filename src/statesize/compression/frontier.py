"""Loss against bytes of state: cuts of several sizes, in float and int8, and what ESS and Gramians say beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from statesize.compression.compress import extra_bits, split_text, state_bytes
from statesize.compression.proposals import Bases, Ranking
from statesize.compression.scoring.scores import score
from statesize.compression.shrinking import rounded_model
from statesize.interval import Interval
from statesize.measurement import measure
from statesize.mixers.config import ROUNDED
from statesize.mixers.model import LanguageModel
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
    """What is known of one head, or of all channels of a layer of S6, without cutting it."""

    layer: int
    head: int
    ess: float  # entropy-ESS, the mean over positions and sequences
    missed: tuple[float, ...]  # share of its output's energy that a cut to each of SHARES misses, by its Gramians


@torch.no_grad()
def frontier(
    model: LanguageModel, tokenizer: AnyTokenizer, documents: list[str], length: int = 256
) -> tuple[list[Point], list[Head]]:
    """The cost of all ways on the held-out documents of `compress`."""
    calibration, _, held_out = split_text(model, tokenizer, documents, length)
    ranking = Ranking.of(model, calibration)
    n, heads = model.config.key_size, sum(map(len, ranking.bases.values()))
    before = score(model, held_out.inputs, held_out.targets)
    rounds = set(model.config.pattern) <= ROUNDED
    made = [("uncut", 1.0, "int8", rounded_model(model))] if rounds else []
    for share in SHARES:
        for way, cut in ranking.cuts(max(heads, round(share * n * heads))).items():
            made += [(way, share, "float", cut), *([(way, share, "int8", rounded_model(cut))] if rounds else [])]
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
    return points, _heads(model, ranking.bases, calibration.inputs[:_SEQUENCES])


def _heads(model: LanguageModel, bases: Bases, inputs: Tensor) -> list[Head]:
    """Facts of each head at some inputs (S, L)."""
    found: list[Head] = []
    ess: dict[int, Tensor] = {}

    def watch(layer: int, mixer: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        measured = measure(model.blocks[layer].mixer.operator(arguments[0]), positions=_POSITIONS).entropy
        if measured is not None:
            ess[layer] = measured.mean((0, 2))

    handles = [model.blocks[layer].mixer.register_forward_pre_hook(partial(watch, layer)) for layer in bases]
    model(inputs)
    for handle in handles:
        handle.remove()
    for layer, own in bases.items():
        # The channels of S6 share what is kept of them.
        entropies = ess[layer] if len(own) == len(ess[layer]) else ess[layer].mean(0, keepdim=True)
        for head, (basis, entropy) in enumerate(zip(own, entropies, strict=True)):
            kept = [max(1, round(share * model.config.key_size)) for share in SHARES]
            found.append(Head(layer, head, float(entropy), tuple(float(basis.error[states]) for states in kept)))
    return found
