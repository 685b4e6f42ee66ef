"""What a worker does with a sequence: the model runs over it, and its mixers are measured one after another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import xarray as xr
from torch import nn

from statesize.adapters import Captured, CheckPolicy
from statesize.adapters.observation import SHARED
from statesize.adapters.select import NothingMeasuredError
from statesize.io.files import digest
from statesize.measurement.settings import Settings
from statesize.models.digests import tokens_sha256
from statesize.profiling.measuring import captured_mixers, measure_side_by_side
from statesize.profiling.work import Work, plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of, counted


def run_key(model: Mapping[str, object], settings: Settings, reference: int | None) -> str:
    """A digest of everything but the input that a mixer's numbers depend on; `model` are its `model_facts`."""
    parts = {**model, "settings": dataclasses.asdict(settings), "reference": reference}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


@dataclass(eq=False)
class SequenceTask:
    """A sequence that is to be measured.

    Attributes:
        given: Token ids, (L,), or what else the model takes.
        key: Digest of the run.
        reference: Tokens of the sequence that decides how many heads or channels are measured.
        finished: Names of the finished parts of this sequence; they grow while it is measured.
    """

    sequence: int
    given: Given
    key: str
    reference: int
    finished: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        return f"sequence {self.sequence} of {len(self.given)} {counted([self.given])}"

    def part(self, mixer: str) -> str:
        """Name of the part that holds the dataset of a mixer, or "" for the end of the sequence."""
        facts = f"{self.key} {tokens_sha256([self.given])} {mixer}"
        return f"{self.sequence:06d}/{digest(facts.encode())}"


@dataclass(frozen=True)
class MixerDone:
    """A mixer that was measured, the `index`-th of `mixers`; without a dataset where it is among the finished parts."""

    index: int
    mixers: int
    name: str
    dataset: xr.Dataset | None


@dataclass(frozen=True)
class SequenceDone:
    """The end of a sequence: its mixers that were measured, in the order of their calls, and why others were not."""

    mixers: tuple[str, ...]
    skipped: dict[str, str]

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()


@dataclass(eq=False)
class SequenceWork:
    """A model that measures one sequence after another."""

    model: nn.Module
    settings: Settings
    checking: CheckPolicy = field(default_factory=lambda: CheckPolicy("read"))

    def __call__(self, request: SequenceTask) -> Iterator[MixerDone | SequenceDone]:
        """A step for each mixer, then the end, also of a sequence in which none can be measured."""
        try:
            yield from self._steps(request)
        except NothingMeasuredError as error:
            yield SequenceDone((), error.skipped)

    def _steps(self, request: SequenceTask) -> Iterator[MixerDone | SequenceDone]:
        sequence, given, checks = request.sequence, request.given, self.checking.for_run(self.model)
        captured = captured_mixers(
            self.model, batch_of(given), self.settings.layers, checks, sequence,
            memory=self.settings.memory, mixes=self.settings.mixes, axis=axis_of(given),
        )  # fmt: skip
        total, names = len(captured.mixers), list[str]()
        for index, item in enumerate(captured):
            group = plan_group(item, sequence, len(given), request.reference, self.settings)
            if group and isinstance(group, str):
                captured.skipped[item.name + SHARED] = group
            for name, dataset in self._measured(item, group, request):
                names.append(name)
                yield MixerDone(index, total, name, dataset)
            # The names would keep this operator alive while the next is built.
            del item, group
        yield SequenceDone(tuple(names), dict(captured.skipped))

    def _measured(
        self, item: Captured, group: tuple[Captured, Work] | str, request: SequenceTask
    ) -> list[tuple[str, xr.Dataset | None]]:
        """The names of a mixer and its groups with what is measured, or None where it is among the finished parts."""
        sequence, finished = request.sequence, request.finished
        works: list[tuple[Captured, Work]] = []
        if not finished or request.part(item.name) not in finished:
            works.append((item, plan_work(item, sequence, len(request.given), request.reference, self.settings)))
        names = [item.name]
        if not isinstance(group, str):
            names.append(group[0].name)
            works += [group] if not finished or request.part(names[-1]) not in finished else []
        measured = measure_side_by_side(works, sequence, self.settings)
        datasets = {one.name: dataset for (one, _), dataset in zip(works, measured, strict=True)}
        return [(name, datasets.get(name)) for name in names]
