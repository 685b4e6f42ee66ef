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

from statesize.check import require_count
from statesize.errors import StatesizeError
from statesize.measurement.settings import Settings, check_settings
from statesize.models.load import LoadedModel, kernels, model_facts
from statesize.parallel.ray import OnRay, ray_session, sent
from statesize.profiling.measuring import Layers
from statesize.profiling.profile import Profile, warned
from statesize.profiling.profile_run import ProfileProgress, ProfileRun, Provenance, finished_profile, open_parts
from statesize.profiling.sequences import MixerDone, SequenceDone, SequenceTask, SequenceWork, run_key
from statesize.results.store import check_destination
from statesize.texts.arguments import Labels, position_labels
from statesize.texts.inputs import Inputs, given_sequences, sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer
from statesize.version import __version__

Loader: TypeAlias = Callable[[], nn.Module | LoadedModel]

# A process with torch and its libraries, before it holds a model.
_PROCESS_BYTES = 5 * 10**8


def profile_on_ray(
    model: nn.Module | Loader,
    inputs: Inputs,
    *,
    address: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    labels: Labels = None,
    layers: Layers = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
    **settings: Any,
) -> Profile:
    """Measure a model over inputs as `statesize.profile` does, with the sequences spread over processes on Ray.

    Each process holds the model and measures one sequence after another; a measured mixer is stored at
    once, and what a killed one had not finished is done by another. The profile is that of a single process: the same
    bit for bit where that is set to `cpus` threads, else within the bounds that it states. With `output`, both go on
    from each other's files.
    All machines need this version of statesize, and the same of torch and numpy.

    Args:
        model: A function that loads the model in each process, such as
            `functools.partial(load_model, "gpt2")` with `load_model` of `statesize.models.load`, so that no
            weights are sent; a folder must be there on all machines. Or a module, of which the structure is pickled
            and the weights are put into Ray's object store as plain bytes, once for all processes of a machine.
        inputs: As for `statesize.profile`; all of them are read before the work, as in a list.
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        cpus: Cores of each process, and its threads. There are as many processes as sequences, cores and memory allow.
        gpus: GPUs of each process, or a share of one; a model on a GPU needs some.
        tokenizer: As for `statesize.profile`.
        axis: Likewise.
        labels: Likewise.
        layers: Likewise.
        output: Likewise.
        name: Likewise.
        source: Likewise.
        on_progress: Likewise; sequences come in the order in which they are measured.
        **settings: Other arguments of `statesize.profile`: tolerances, positions, channels, seed,
            memory (of each process) and so on.

    Returns:
        The profile.

    Raises:
        InputError: If `cpus` is no positive number, no machine of the cluster is large enough, Ray is not installed or
            nothing answers at the address; beside those of `statesize.profile`.
        FileError: If the output cannot be written, or its units are changed by others meanwhile.
    """
    return warned(run_on_ray(
        model, inputs, check_settings(**settings), address=address, cpus=cpus, gpus=gpus,
        tokenizer=tokenizer, axis=axis, labels=labels, layers=layers, output=output, name=name, source=source,
        on_progress=on_progress,
    ))  # fmt: skip


def run_on_ray(
    model: nn.Module | Loader,
    inputs: Inputs,
    settings: Settings,
    *,
    address: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    labels: Labels = None,
    layers: Layers = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
) -> Profile:
    """`profile_on_ray` with checked settings."""
    tokenizer = supported_tokenizer(tokenizer)
    require_count("cpus", cpus)
    # Where positions lie is asked of the model; one that each process loads is not there.
    here = isinstance(model, nn.Module)
    known = list((given_sequences(model, inputs, tokenizer, axis) if here else sequences(inputs, tokenizer))[0])
    shown = position_labels(labels, known)
    reference = max(map(len, known))
    settings.check_reach(reference)
    settings = settings.for_texts(reference)
    path = None if output is None else Path(output)
    if path is not None:
        check_destination(path)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="statesize-"))
        ray = stack.enter_context(ray_session(address))
        load = sent(ray, model) if isinstance(model, nn.Module) else model
        make = partial(LoadedWork, load, layers, settings, reference)
        workers = stack.enter_context(OnRay(make, ray, cpus, gpus, settings.memory + _PROCESS_BYTES, cpus))
        ready: Ready = next(workers.run(["loading the model"])).get()
        workers.memory += ready.bytes
        known_source = {**ready.source, **(source or {})}
        origin = Provenance(name or ready.name, ready.weights, ready.key, known_source, cpus, ready.kernels)
        parts = stack.enter_context(open_parts(Path(scratch) / "profile" if path is None else path))
        finished = path and finished_profile(path, ready.key, known, origin.model, shown)
        if finished is not None:
            return finished
        run = ProfileRun(settings, ready.key, len(known), parts, on_progress, reference)
        run.measure(known, workers)
        return run.profile(tokenizer, origin, path, shown)


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

    def __init__(self, load: Loader, layers: Layers, settings: Settings, reference: int) -> None:
        loaded = load()
        name, source = (loaded.name, loaded.source) if isinstance(loaded, LoadedModel) else (type(loaded).__name__, {})
        model = loaded.model if isinstance(loaded, LoadedModel) else loaded
        facts = model_facts(model)
        self.ready = Ready(
            name=name,
            source=source,
            weights=str(facts["weights"]),
            key=run_key(facts, settings, layers, reference),
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers())),
            kernels=kernels(model),
            machine=f"{socket.gethostname()} (statesize {__version__}, torch {torch.__version__})",
        )
        self._measure = SequenceWork(model, layers, settings)

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
