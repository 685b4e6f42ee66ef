"""Dips of a model: it is measured around the delimiters of a text, in this process or by many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

from torch import nn

from statesize.errors import FileError
from statesize.io.steps import Steps
from statesize.lab.studies.delimiters.corpus import DocumentCorpus
from statesize.lab.studies.delimiters.measuring import METRICS, Response, respond
from statesize.lab.studies.delimiters.modulation import ALL, CurvePoint, Dip, modulation
from statesize.lab.studies.delimiters.parts import Part, PartStore, encoded, joined, parts_key, parts_of
from statesize.lab.studies.delimiters.sequences import (
    CONDITIONS,
    CONTROLS,
    OBSERVED,
    Aligned,
    Windows,
    aligned_sequences,
)
from statesize.parallel.executor import Executor, Make, SerialExecutor
from statesize.parallel.ray import OnRay

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
    model: nn.Module,
    corpus: DocumentCorpus,
    windows: Windows,
    channels: int = 16,
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
    on_progress: Tell | None = None,
    folder: Path | None = None,
) -> ModelDips:
    """Measure a model around the delimiters of a text and around the places of all controls.

    Text or models that do not fit are an InputError.

    Args:
        name: What tables call the model.
        model: The model.
        corpus: What it reads.
        windows: Past and future of each H_i.
        channels: Heads or channels of each mixer that are measured at most.
        seed: Seed of the controls and of the bootstrap.
        conditions: Which of `CONDITIONS`.
        on_progress: Called with the condition, the sequences that are done and their number.
        folder: Keeps what is measured in parts, and the parts that it has are not measured again.

    Returns:
        The depths.
    """
    tell = on_progress or _silent

    def work(part: Part) -> list[Response]:
        def on_sequences(done: int) -> None:
            # The end of a part is reported when it is stored.
            if done < len(part.aligned.ids):
                tell(part.aligned.condition, part.start + done, part.total)

        return [respond(model, part.aligned, windows, channels, on_sequences)]

    store = PartStore(folder, "" if folder is None else parts_key(model, windows, channels), name, windows)
    chosen = aligned_sequences(corpus, windows, seed, conditions)
    return _dips(name, chosen, windows, seed, SerialExecutor(work), store, tell)


def measure_dips_on_ray(
    name: str,
    load: Callable[[], nn.Module],
    corpus: DocumentCorpus,
    windows: Windows,
    crew: Callable[[Make], OnRay],
    folder: Path,
    channels: int = 16,
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
    on_progress: Tell | None = None,
) -> ModelDips:
    """`measure_dips` by the workers of `crew`, bit for bit as with as many threads here, and from the same parts."""
    with crew(partial(LoadedDips, load, windows, channels)) as workers:
        key: str = next(workers.run(["loading the model"])).get()
        chosen = aligned_sequences(corpus, windows, seed, conditions)
        store = PartStore(folder, key, name, windows)
        return _dips(name, chosen, windows, seed, workers, store, on_progress or _silent)


class LoadedDips:
    """The work of a process that loads the model itself: first the key of its parts, then parts."""

    def __init__(self, load: Callable[[], nn.Module], windows: Windows, channels: int) -> None:
        self._arguments = load(), windows, channels

    def __call__(self, task: str | Part) -> Iterator[str | Response]:
        """The key of the parts, or the measurement of a part."""
        model, windows, channels = self._arguments
        yield parts_key(*self._arguments) if isinstance(task, str) else respond(model, task.aligned, windows, channels)


def _dips(
    name: str,
    chosen: Sequence[Aligned],
    windows: Windows,
    seed: int,
    executor: Executor,
    store: PartStore,
    tell: Tell,
) -> ModelDips:
    parts = [part for aligned in chosen for part in parts_of(aligned)]
    # Parts in files are read again when they are joined, one condition at a time.
    missing = [part for part in parts if store.read(part) is None]
    done = {aligned.condition: len(aligned.ids) for aligned in chosen}
    for part in missing:
        done[part.aligned.condition] -= len(part.aligned.ids)
    for aligned in chosen:
        if done[aligned.condition]:
            tell(aligned.condition, done[aligned.condition], len(aligned.ids))
    for result in executor.run(missing):
        part = result.task
        store.write(part, result.get())
        done[part.aligned.condition] += len(part.aligned.ids)
        tell(part.aligned.condition, done[part.aligned.condition], part.total)

    dips, curve, kinds = list[Dip](), list[CurvePoint](), set[str]()
    for aligned in chosen:
        responses = [store.read(part) for part in parts if part.aligned.condition == aligned.condition]
        if None in responses:
            raise FileError(f"{store.folder} was changed while it was in use. Run the same again.")
        response = joined(cast("list[Response]", responses))
        kinds |= set(response.kinds)
        for metric in METRICS:
            more_dips, more_curve = modulation(response, metric, seed)
            dips += more_dips
            curve += more_curve
    return ModelDips(name, frozenset(kinds), windows, tuple(dips), tuple(curve))


def _silent(condition: str, done: int, total: int) -> None:
    pass


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
    sample = Part(Aligned(first.condition, first.ids[:_PLANNED_FROM], first.cut), 0, len(first.ids))
    respond(model, sample.aligned, windows, channels)  # compiles what is compiled once
    started = time.process_time()
    content = encoded(name, sample, respond(model, sample.aligned, windows, channels))
    steps, some = Steps({"sequences": sequences}), len(sample.aligned.ids)
    steps.took("sequences", time.process_time() - started, some)
    sizes = len(corpus.documents), sequences, first.ids.shape[1], windows.past, windows.future
    return PlannedDips(name, *sizes, steps.seconds, round(len(content) * sequences / some))
