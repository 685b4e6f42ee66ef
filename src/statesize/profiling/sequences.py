"""What a worker does with a sequence: the model runs over it, and its mixers are measured one after another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import torch
import xarray as xr
from torch import nn

from statesize.adapters import CheckPolicy
from statesize.adapters.models.sharded import class_of
from statesize.adapters.observation import SHARED
from statesize.adapters.select import NothingMeasuredError
from statesize.errors import StatesizeError
from statesize.io.files import digest, parse_json
from statesize.measurement.settings import Settings
from statesize.models.digests import tokens_sha256
from statesize.models.load import LoadedModel, kernels, model_facts
from statesize.profiling.measuring import captured_mixers, measure_side_by_side
from statesize.profiling.work import plan_group, plan_work
from statesize.texts.arguments import Given, axis_of, batch_of, counted
from statesize.version import __version__

Loader: TypeAlias = Callable[[], nn.Module | LoadedModel]


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

    @classmethod
    def from_bytes(cls, content: bytes) -> SequenceDone:
        """The end that `to_bytes` wrote; other bytes are a ValueError."""
        try:
            facts = cast("Any", parse_json(content))
            return cls(tuple(map(str, facts["mixers"])), dict[str, str](facts["skipped"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("it holds no mixers") from error


@dataclass(eq=False)
class SequenceWork:
    """A model that measures one sequence after another."""

    model: nn.Module
    settings: Settings
    checking: CheckPolicy = field(default_factory=lambda: CheckPolicy("read"))
    sinks: bool = True  # whether those of attention are looked for

    def __call__(self, request: SequenceTask) -> Iterator[MixerDone | SequenceDone]:
        """A step for each mixer, then the end, also of a sequence in which none can be measured."""
        sequence, given, settings = request.sequence, request.given, self.settings
        planning, names = (sequence, len(given), request.reference, settings), list[str]()
        try:
            captured = captured_mixers(
                self.model, batch_of(given), settings.layers, self.checking.for_run(self.model), sequence,
                memory=settings.memory, mixes=settings.mixes, axis=axis_of(given),
            )  # fmt: skip
            for index, item in enumerate(captured):
                group = plan_group(item, *planning)
                if group and isinstance(group, str):
                    captured.skipped[item.name + SHARED] = group
                groups = [] if isinstance(group, str) else [group]
                here = [item.name, *(one.name for one, _ in groups)]
                finished = {name for name in here if request.finished and request.part(name) in request.finished}
                works = [] if item.name in finished else [(item, plan_work(item, *planning))]
                works += [one for one in groups if one[0].name not in finished]
                if not self.sinks:
                    works = [(one, replace(work, attends=False)) for one, work in works]
                measured = measure_side_by_side(works, sequence, settings)
                datasets = dict(zip((one.name for one, _ in works), measured, strict=True))
                # The names would keep this operator alive while the next is built.
                del item, group, groups, works
                for name in here:
                    names.append(name)
                    yield MixerDone(index, len(captured.mixers), name, datasets.get(name))
        except NothingMeasuredError as error:
            yield SequenceDone((), error.skipped)
            return
        yield SequenceDone(tuple(names), dict(captured.skipped))


@dataclass(frozen=True)
class Provenance:
    """What was measured, as a profile's attributes say it.

    Attributes:
        model: What tables call the model.
        weights: Digest of its weights; empty where it was not asked for.
        key: Digest of the run; empty where it was not asked for.
        source: Where the model comes from, and the command line.
        threads: Threads of torch in the processes that measured.
        kernels: With what the model's layers run, by their kind.
        bytes: Size of the weights.
    """

    model: str
    weights: str
    key: str
    source: Mapping[str, Any]
    threads: int
    kernels: Mapping[str, str]
    bytes: int = 0


class LoadedWork:
    """The work of a process that loads the model; without digests where nothing is stored and no other compared."""

    def __init__(
        self,
        model: nn.Module | Loader,
        settings: Settings,
        reference: int | None,
        *,
        digests: bool = True,
        sinks: bool = True,
    ) -> None:
        loaded = model if isinstance(model, nn.Module) else model()
        name, source = (
            (loaded.name, loaded.source) if isinstance(loaded, LoadedModel) else (class_of(loaded).__name__, {})
        )
        model = loaded.model if isinstance(loaded, LoadedModel) else loaded
        facts = model_facts(model) if digests else {}
        key = run_key(facts, settings, reference) if digests else ""
        size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
        weights, threads = str(facts.get("weights", "")), torch.get_num_threads()
        self.origin = Provenance(name, weights, key, source, threads, kernels(model), size)
        self._measure = SequenceWork(model, settings, sinks=sinks)

    def __call__(self, task: str | SequenceTask) -> Iterator[Provenance | MixerDone | SequenceDone]:
        """What was loaded, or the steps of a sequence."""
        if isinstance(task, str):
            return iter([self.origin])
        if task.key != self.origin.key:
            raise StatesizeError(
                f"the worker on {socket.gethostname()} (statesize {__version__}, torch {torch.__version__}) computes "
                "something else than the first: weights, versions or settings differ. Make them the same on all "
                "machines of the cluster."
            )
        return self._measure(task)
