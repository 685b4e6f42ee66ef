"""What one process of many does: it holds the model, and measures the sequences that it is given."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from statesize.adapters import Capture, Checking
from statesize.loading.digests import weights_sha256
from statesize.loading.models import LoadedModel
from statesize.profiling.measuring import Layers, capture_mixers, measure_mixer, plan_work
from statesize.profiling.units import run_key
from statesize.results.record import SequenceRecord
from statesize.results.settings import Settings
from statesize.version import __version__

Loader: TypeAlias = Callable[[], nn.Module | LoadedModel]


@dataclass(frozen=True)
class Asked:
    """What all workers of a run measure.

    Attributes:
        settings: What each mixer is measured for.
        layers: The choice of layers.
        reference: Tokens of the sequence that decides how many heads or channels are measured.
    """

    settings: Settings
    layers: Layers
    reference: int


@dataclass(frozen=True)
class Ready:
    """What a worker says once it has the model.

    Attributes:
        name: What tables call the model.
        source: Where it comes from.
        weights: Digest of its weights.
        key: Digest of the run.
        bytes: Size of the weights.
        place: The worker's machine, and the versions there.
    """

    name: str
    source: Mapping[str, str]
    weights: str
    key: str
    bytes: int
    place: str


@dataclass(eq=False, repr=False)
class Worker:
    """The model in a process of its own, on `threads` threads; its methods are called one after another.

    Attributes:
        load: Gives the model.
        threads: For torch and the engines.
        asked: What is measured.
    """

    load: Loader
    threads: int
    asked: Asked
    _model: nn.Module = field(init=False)
    _sequence: int = field(init=False, default=0)
    _ids: Tensor = field(init=False)
    _captured: Capture = field(init=False)
    _checking: Checking = field(init=False, default_factory=lambda: Checking("read"))

    def open(self) -> Ready:
        """Load the model; not done while the worker is made, so that errors keep their kind on the way back.

        Returns:
            What it is.
        """
        torch.set_num_threads(self.threads)
        loaded = self.load()
        name, source = (loaded.name, loaded.source) if isinstance(loaded, LoadedModel) else (type(loaded).__name__, {})
        self._model = loaded.model if isinstance(loaded, LoadedModel) else loaded
        weights = weights_sha256(self._model)
        asked, tensors = self.asked, (*self._model.parameters(), *self._model.buffers())
        return Ready(
            name=name,
            source=source,
            weights=weights,
            key=run_key(self._model, weights, asked.settings, asked.layers, asked.reference),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            place=f"{socket.gethostname()} (statesize {__version__}, torch {torch.__version__})",
        )

    def begin(self, sequence: int, ids: Tensor) -> tuple[list[str], dict[str, str]]:
        """Run the model over a sequence.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens, (L,).

        Returns:
            Names of the mixers, in the order of their calls, and what is skipped, with reasons.
        """
        checks = self._checking.next(self._model)
        self._captured = capture_mixers(self._model, sequence, ids, self.asked.layers, checks)
        self._sequence, self._ids = sequence, ids
        return [mixer.name for mixer in self._captured.mixers], dict(self._captured.skipped)

    def next(self, done: Collection[str]) -> SequenceRecord | dict[str, str]:
        """Measure the next mixer of the sequence.

        Args:
            done: Names of mixers that were measured before.

        Returns:
            What was measured; after the last mixer, what is skipped, with reasons.
        """
        for item in self._captured:
            if item.name not in done:
                work = plan_work(item, self._sequence, len(self._ids), self.asked.reference, self.asked.settings)
                return measure_mixer(item, self._sequence, work, self.asked.settings)
        return dict(self._captured.skipped)
