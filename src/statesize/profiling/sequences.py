"""What a worker does with a sequence: the model runs over it, and its mixers are measured one after another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self, TypeAlias

import torch
import xarray as xr
from torch import nn

from statesize.adapters import Captured, Checks
from statesize.adapters.observation import SHARED
from statesize.adapters.select import NothingMeasuredError
from statesize.codes import Note
from statesize.errors import StatesizeError
from statesize.io.files import digest
from statesize.measurement.settings import Settings
from statesize.models.load import LoadedModel, model_facts
from statesize.parallel.threads import Step
from statesize.profiling.work import MemoryNeededError, captured_mixers, measure_mixer, plan_work
from statesize.texts.inputs import Given, counted, inputs_of, tokens_sha256
from statesize.version import __version__

Loader: TypeAlias = Callable[[], nn.Module | LoadedModel]


@dataclass(eq=False)
class SequenceTask:
    """A sequence that is to be measured."""

    sequence: int
    given: Given  # token ids, (L,), or what else the model takes
    key: str  # digest of the run
    reference: int  # tokens of the sequence that decides how many heads or channels are measured
    # Names of the finished parts of this sequence; they grow while it is measured.
    finished: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        return f"sequence {self.sequence} of {len(self.given)} {counted([self.given])}"

    @cached_property
    def _given_sha256(self) -> str:
        return tokens_sha256([self.given])

    def part(self, mixer: str) -> str:
        """Name of the part that holds the dataset of a mixer, or "" for the end of the sequence."""
        facts = f"{self.key} {self._given_sha256} {mixer}"
        return f"{self.sequence:06d}/{digest(facts.encode())}"


@dataclass(frozen=True)
class MixerDone(Step):
    """A mixer that was measured, the `index`-th of `mixers`; without a dataset where it is among the finished parts."""

    index: int
    mixers: int
    name: str
    dataset: xr.Dataset | None


@dataclass(frozen=True)
class SequenceDone:
    """The end of a sequence: its mixers that were measured, in the order of their calls, and why others were not."""

    mixers: tuple[str, ...]
    skipped: dict[str, Note]

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> SequenceDone:
        """The end that `to_bytes` wrote."""
        facts = json.loads(content)
        return cls(tuple(facts["mixers"]), {name: Note.from_json(note) for name, note in facts["skipped"].items()})


@dataclass(frozen=True)
class Provenance:
    """What was measured."""

    attributes: Mapping[str, Any]  # as a profile has them; digests are empty where they were not asked for
    key: str  # digest of the run
    bytes: int  # size of the weights

    @classmethod
    def of(
        cls, model: nn.Module, settings: Settings | None = None, reference: int | None = None, unknown: str = ""
    ) -> Self:
        """That of a model, with digests of its weights and of the run where it is told what the run measures."""
        weights = key = ""
        if settings is not None:
            # Everything but the input that a mixer's numbers depend on.
            facts = model_facts(model, unknown) | {"settings": dataclasses.asdict(settings), "reference": reference}
            weights = str(facts["weights"])
            key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()
        tensors = set[torch.Tensor]()
        for module in model.modules():
            tensors.update(module.parameters(recurse=False), module.buffers(recurse=False))
        attributes: dict[str, Any] = {
            "model": type(model).__name__,
            "weights_sha256": weights,
            "run_sha256": key,
            "source": {},
            "threads": torch.get_num_threads(),
        }
        return cls(attributes, key, sum(tensor.nbytes for tensor in tensors))


@dataclass(eq=False)
class SequenceWork:
    """A model that measures one sequence after another."""

    model: nn.Module
    settings: Settings
    checks: Checks = "all"  # what the model is compared with, until all its layers have passed that over one sequence
    after: Checks = "read"  # what it is compared with from then on
    # What the process has loaded, which the key of each task must be of; None where nobody asks.
    origin: Provenance | None = None

    def __call__(self, request: str | SequenceTask) -> Iterator[Any]:
        """A step for each mixer, then the end, also of a sequence in which none can be measured; or what was loaded."""
        if isinstance(request, str):
            yield self.origin
            return
        if self.origin is not None and request.key != self.origin.key:
            raise StatesizeError(
                f"the worker on {socket.gethostname()} (statesize {__version__}, torch {torch.__version__}) computes "
                "something else than the first: weights, versions or settings differ. Make them the same on all "
                "machines of the cluster."
            )
        sequence, given, settings = request.sequence, request.given, self.settings
        names, (inputs, axis) = list[str](), inputs_of(given)
        try:
            captured, index = captured_mixers(self.model, inputs, self.checks, settings, sequence, axis), 0
            for item in captured:
                done = {item.name: self._measured(item, request)}
                if (together := item.by_group()) is not None:
                    try:
                        done[together.name] = self._measured(together, request)
                    except MemoryNeededError as error:
                        # T of all heads of a group takes several times what one head does.
                        captured.skipped[together.name] = Note.of(error)
                # The names would keep this operator alive while the next is built.
                del item, together
                for name, dataset in done.items():
                    yield MixerDone(index, len(captured.mixers), name, dataset)
                names += done
                index += 1
        except NothingMeasuredError as error:
            yield SequenceDone((), error.skipped)
            return
        if all(name.endswith(SHARED) for name in captured.skipped):
            self.checks = self.after
        yield SequenceDone(tuple(names), dict(captured.skipped))

    def _measured(self, item: Captured, request: SequenceTask) -> xr.Dataset | None:
        """The dataset of a mixer; None where it is among the finished parts."""
        if request.finished and request.part(item.name) in request.finished:
            return None
        work = plan_work(item, request.sequence, len(request.given), request.reference, self.settings)
        return measure_mixer(item, request.sequence, work, self.settings)


def loaded_work(
    model: nn.Module | Loader, settings: Settings, reference: int | None, *, digests: bool = True, unknown: str = ""
) -> SequenceWork:
    """The work of a process that loads the model; without digests where nothing is stored and no other compared."""
    loaded = model if isinstance(model, nn.Module) else model()
    measured = loaded.model if isinstance(loaded, LoadedModel) else loaded
    origin = Provenance.of(measured, settings if digests else None, reference, unknown)
    if isinstance(loaded, LoadedModel):
        origin = replace(origin, attributes={**origin.attributes, "model": loaded.name, "source": loaded.source})
    return SequenceWork(measured, settings, origin=origin)
