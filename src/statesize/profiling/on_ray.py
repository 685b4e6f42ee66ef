"""A profile by many processes: sequences are spread over a Ray cluster, on one machine or several."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from statesize.errors import StatesizeError
from statesize.io.progress import Bars
from statesize.measurement.settings import Settings
from statesize.models.load import LoadedModel, kernels, load_model, load_model_facts, model_facts
from statesize.parallel.executor import RayCluster
from statesize.parallel.ray import OnRay, sent
from statesize.parallel.ray_session import ray_session
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import (
    ProfileProgress,
    ProfileRun,
    Provenance,
    finished_profile,
    open_parts,
    profile_bar,
)
from statesize.profiling.sequences import MixerDone, SequenceDone, SequenceTask, SequenceWork, run_key
from statesize.results.store import check_destination
from statesize.texts.inputs import Inputs, given_sequences, or_bundled, sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer
from statesize.version import __version__

Loader: TypeAlias = Callable[[], nn.Module | LoadedModel]

# A process with torch and its libraries, before it holds a model.
_PROCESS_BYTES = 5 * 10**8


def run_on_ray(
    model: nn.Module | str | Loader,
    inputs: Inputs | None,
    settings: Settings,
    cluster: RayCluster,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
) -> Profile:
    """Profile a model as `run_profile` does, with the sequences spread over processes on Ray.

    A measured mixer is stored at once, and what a killed process had not finished is done by another. The profile is
    that of a single process: the same bit for bit where that is set to as many threads as a process has cores, else
    within the bounds that it states. With an output, both go on from each other's files. A model by its name, or a
    function that loads it, is loaded in each process, so that no weights are sent. The structure of a module is
    pickled, and its weights are put into Ray's object store as plain bytes, once for all processes of a machine.

    Args:
        model: A model, its name, or a function that loads it, such as a partial of `load_model`.
        inputs: As for `run_profile`; all of them are read before the work, as in a list.
        settings: What is measured.
        cluster: Where the processes run.
        tokenizer: As for `run_profile`.
        axis: Likewise.
        output: Likewise.
        name: Likewise.
        source: Likewise.
        on_progress: Likewise; sequences come in the order in which they are measured.

    Returns:
        The profile.

    Raises:
        InputError: If no machine of the cluster is large enough, Ray is not installed or nothing answers at the
            address; beside those of `statesize.profile`.
        FileError: If the output cannot be written, or its units are changed by others meanwhile.
    """
    tokenizer = supported_tokenizer(tokenizer)
    if isinstance(model, str):
        tokenizer = tokenizer or load_model_facts(model, needs_tokenizer=inputs is None)[0]
        model, name = partial(load_model, model, needs_tokenizer=False), name or model
    inputs = or_bundled(inputs, tokenizer)
    # Where positions lie is asked of the model; one that each process loads is not there.
    here = isinstance(model, nn.Module)
    known = list((given_sequences(model, inputs, tokenizer, axis) if here else sequences(inputs, tokenizer))[0])
    reference = max(map(len, known))
    settings.check_reach(reference)
    settings = settings.for_texts(reference)
    path = None if output is None else Path(output)
    if path is not None:
        check_destination(path)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="statesize-"))
        ray = stack.enter_context(ray_session(cluster.address))
        load = sent(ray, model) if isinstance(model, nn.Module) else model
        make, memory = partial(LoadedWork, load, settings, reference), settings.memory + _PROCESS_BYTES
        workers = stack.enter_context(OnRay(ray, make, cluster.cpus, cluster.gpus, memory, cluster.cpus))
        ready: Ready = next(workers.run(["loading the model"])).get()
        workers.memory += ready.bytes
        known_source = {**ready.source, **(source or {})}
        origin = Provenance(name or ready.name, ready.weights, ready.key, known_source, cluster.cpus, ready.kernels)
        parts = stack.enter_context(open_parts(Path(scratch) / "profile" if path is None else path))
        finished = path and finished_profile(path, ready.key, known, origin.model)
        if finished is not None:
            return finished
        bars = stack.enter_context(Bars(on_progress is not None, lines=False))
        report = on_progress or profile_bar(bars, origin.model, len(known))
        run = ProfileRun(settings, ready.key, len(known), parts, report, reference)
        run.measure(known, workers)
        return run.profile(tokenizer, origin, path)


@dataclass(frozen=True)
class Ready:
    """What a worker says of the model that it has loaded, and of itself.

    Attributes:
        name: What tables call the model.
        source: Where the model comes from.
        weights: Digest of the weights.
        key: Digest of the run.
        bytes: Size of the weights.
        kernels: With what its layers run.
        machine: The worker's machine, and the versions there.
    """

    name: str
    source: Mapping[str, str]
    weights: str
    key: str
    bytes: int
    kernels: Mapping[str, str]
    machine: str


class LoadedWork:
    """The work of a process that loads the model itself."""

    def __init__(self, load: Loader, settings: Settings, reference: int) -> None:
        loaded = load()
        name, source = (loaded.name, loaded.source) if isinstance(loaded, LoadedModel) else (type(loaded).__name__, {})
        model = loaded.model if isinstance(loaded, LoadedModel) else loaded
        facts = model_facts(model)
        self.ready = Ready(
            name=name,
            source=source,
            weights=str(facts["weights"]),
            key=run_key(facts, settings, reference),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())),
            kernels=kernels(model),
            machine=f"{socket.gethostname()} (statesize {__version__}, torch {torch.__version__})",
        )
        self._measure = SequenceWork(model, settings)

    def __call__(self, task: str | SequenceTask) -> Iterator[Ready | MixerDone | SequenceDone]:
        """What was loaded, or the steps of a sequence."""
        if isinstance(task, str):
            yield self.ready
            return
        if task.key != self.ready.key:
            raise StatesizeError(
                f"the worker on {self.ready.machine} computes something else than the first: weights, versions or "
                "settings differ. Make them the same on all machines of the cluster."
            )
        yield from self._measure(task)
