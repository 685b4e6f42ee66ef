"""Dips of a model: it is measured around the delimiters of a text, in this process or by many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from torch import nn

from statesize.io.steps import Steps
from statesize.lab.studies.delimiters.corpus import DocumentCorpus
from statesize.lab.studies.delimiters.measuring import METRICS, Response, respond
from statesize.lab.studies.delimiters.modulation import ALL, CurvePoint, Dip, modulation
from statesize.lab.studies.delimiters.parts import SEQUENCES, encoded, joined, part_name, parts_key, response_parts
from statesize.lab.studies.delimiters.sequences import (
    CONDITIONS,
    CONTROLS,
    OBSERVED,
    Aligned,
    Windows,
    aligned_sequences,
)
from statesize.parallel.executor import Crew, given, here, run

CLAIM_METRIC = "tolerance"
_PLANNED_FROM = 8
Tell: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class ModelDips:
    """The measurement of one model.

    Attributes:
        model: Its name.
        kinds: Kinds of its mixers.
        windows: Positions at which ESS was measured.
        dips: Depths of all conditions, metrics, layers and heads.
        curve: ESS over offsets, of all conditions and metrics.
    """

    model: str
    kinds: frozenset[str]
    windows: Windows
    dips: tuple[Dip, ...]
    curve: tuple[CurvePoint, ...]

    def dip(self, condition: str, metric: str = CLAIM_METRIC) -> Dip:
        """The depth of the whole model.

        Args:
            condition: One of `CONDITIONS`.
            metric: One of `METRICS`.

        Returns:
            The depth and its interval.
        """
        return next(dip for dip in self.dips if (dip.condition, dip.metric, dip.layer) == (condition, metric, ALL))

    @property
    def layer_depths(self) -> dict[str, float]:
        """The depth of each layer at delimiters, by name."""
        dips = [dip for dip in self.dips if (dip.condition, dip.metric, dip.head) == (OBSERVED, CLAIM_METRIC, ALL)]
        return {dip.layer: dip.depth for dip in dips if dip.layer != ALL}

    @property
    def beyond_controls(self) -> bool:
        """Whether the interval at delimiters lies above 0 and above those of all controls."""
        return self.dip(OBSERVED).low > max(0, *(self.dip(control).high for control in CONTROLS))

    @property
    def beyond(self) -> float:
        """By how much the depth at delimiters exceeds 0 and the largest of the controls."""
        return self.dip(OBSERVED).depth - max(0, *(self.dip(control).depth for control in CONTROLS))


def measure_dips(
    name: str,
    model: nn.Module | Callable[[], nn.Module],
    corpus: DocumentCorpus,
    windows: Windows,
    channels: int = 16,
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
    on_progress: Tell | None = None,
    folder: Path | None = None,
    crew: Crew = here,
) -> ModelDips:
    """Measure a model around the delimiters of a text and around the places of all controls.

    Text or models that do not fit are an InputError.

    Args:
        name: What tables call the model.
        model: The model, or a function that loads it where it is measured.
        corpus: What it reads.
        windows: Past and future of each H_i.
        channels: Heads or channels of each mixer that are measured at most.
        seed: Seed of the controls and of the bootstrap.
        conditions: Which of `CONDITIONS`.
        on_progress: Called with the condition, the sequences that are done and their number.
        folder: Keeps what is measured in parts, and the parts that it has are not measured again.
        crew: Gives the processes that measure, such as `ray_workers`; with as many threads they give the same bits.

    Returns:
        The depths.
    """
    chosen = aligned_sequences(corpus, windows, seed, conditions)
    stored = response_parts(folder, name, windows)
    parts = [part for aligned in chosen for part in aligned.parts(SEQUENCES)]
    totals = {aligned.condition: len(aligned.ids) for aligned in chosen}
    done = dict.fromkeys(totals, 0)
    load = partial(given, model) if isinstance(model, nn.Module) else model
    with crew(partial(LoadedDips, load, windows, channels)) as executor:
        # Digests of the weights say whether what is stored is of this model.
        key = "" if folder is None else next(executor.run(["loading the model"])).get()
        names = {part: part_name(part, key, name) for part in parts}
        for measured in run(parts, executor, stored, names.__getitem__):
            measured.get()
            part = measured.task
            done[part.condition] += len(part.ids)
            if on_progress is not None:
                on_progress(part.condition, done[part.condition], totals[part.condition])

    dips, curve, kinds = list[Dip](), list[CurvePoint](), set[str]()
    for aligned in chosen:
        # Read again, so that no more than one condition is in memory.
        response = joined([stored.get(names[part], str(part)) for part in parts if part.condition == aligned.condition])
        kinds |= set(response.kinds)
        for metric in METRICS:
            more_dips, more_curve = modulation(response, metric, seed)
            dips += more_dips
            curve += more_curve
    return ModelDips(name, frozenset(kinds), windows, tuple(dips), tuple(curve))


class LoadedDips:
    """The work of a process that loads the model: the key of its parts, and parts."""

    def __init__(self, load: Callable[[], nn.Module], windows: Windows, channels: int) -> None:
        self._arguments = load(), windows, channels

    def __call__(self, task: str | Aligned) -> Iterator[str | Response]:
        """The key of the parts, or the measurement of a part."""
        model, windows, channels = self._arguments
        yield parts_key(*self._arguments) if isinstance(task, str) else respond(model, task, windows, channels)


@dataclass(frozen=True)
class PlannedDips:
    """The predicted cost of measuring one model."""

    model: str
    documents: int
    sequences: int  # of all conditions
    tokens: int  # of a sequence
    past: int
    future: int
    seconds: float  # predicted processor time
    results: int  # predicted bytes of the parts


def plan_dips(
    name: str,
    model: nn.Module,
    corpus: DocumentCorpus,
    windows: Windows,
    channels: int = 16,
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
) -> PlannedDips:
    """Measure a few sequences and predict the rest; arguments and errors are those of `measure_dips`."""
    chosen = aligned_sequences(corpus, windows, seed, conditions)
    sequences = sum(len(aligned.ids) for aligned in chosen)
    first = chosen[0]
    sample = first.parts(_PLANNED_FROM)[0]
    respond(model, sample, windows, channels)  # compiles what is compiled once
    started = time.process_time()
    content = encoded(name, respond(model, sample, windows, channels))
    steps, some = Steps({"sequences": sequences}), len(sample.ids)
    steps.took("sequences", time.process_time() - started, some)
    sizes = len(corpus.documents), sequences, first.ids.shape[1], windows.past, windows.future
    return PlannedDips(name, *sizes, steps.seconds, round(len(content) * sequences / some))
