"""A profile by many processes: sequences are spread over a Ray cluster, on one machine or several."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from statesize.check import require_count
from statesize.errors import FileError
from statesize.parallel.modules import Structure, put_together, take_apart
from statesize.parallel.ray_session import ray_session
from statesize.profiling.crew import Crew, Job
from statesize.profiling.gathering import Gathering, Origin, Progress, finished_profile, open_units
from statesize.profiling.measuring import Layers
from statesize.profiling.profile import Profile
from statesize.profiling.units import Units
from statesize.profiling.worker import Asked, Loader
from statesize.results.settings import check_settings
from statesize.results.store import check_destination
from statesize.texts.inputs import Inputs, sequences
from statesize.texts.tokens import AnyTokenizer


def profile_on_ray(
    model: nn.Module | Loader,
    inputs: Inputs,
    *,
    address: str | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    tokenizer: AnyTokenizer | None = None,
    layers: Layers = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **asked: Any,
) -> Profile:
    """Measure a model over inputs as `statesize.profile` does, with the sequences spread over processes on Ray.

    Each process holds the model and measures one sequence after another; what it has measured of a mixer is kept at
    once, and what a killed one had not finished is done by another. The profile is that of a single process: the same
    bit for bit where that is set to `cpus` threads, else within the bounds that it states. With `output`, both go on
    from each other's files.
    All machines need this version of statesize, and the same of torch and numpy.

    Args:
        model: A function that loads the model in each process, such as
            `functools.partial(load_model, "gpt2")` with `load_model` of `statesize.loading.models`, so that no
            weights are sent; a folder must be there on all machines. Or a module, of which the structure is pickled
            and the weights are put into Ray's object store as plain bytes, once for all processes of a machine.
        inputs: As for `statesize.profile`; all of them are read before the work, as if they were given in a list.
        address: HOST:PORT or ray://HOST:PORT of a cluster, or "auto" for the one that runs on this machine. None takes
            the one that this process is connected to, or starts one on this machine and stops it at the end.
        cpus: Cores of each process, and its threads. There are as many processes as sequences, cores and memory allow.
        gpus: GPUs of each process, or a share of one; a model on a GPU needs some.
        tokenizer: As for `statesize.profile`.
        layers: Likewise.
        output: Likewise.
        name: Likewise.
        source: Likewise.
        on_progress: Likewise; sequences come in the order in which they are measured.
        **asked: What else `statesize.profile` takes to say what is measured: tolerances, positions, channels, seed,
            memory (of each process) and so on.

    Returns:
        The profile.

    Raises:
        InputError: If `cpus` is no positive number, no machine of the cluster is large enough, Ray is not installed or
            nothing answers at the address; beside those of `statesize.profile`.
        FileError: If the output cannot be written, or its units are changed by others meanwhile.
    """
    settings = check_settings(**asked)
    require_count("cpus", cpus)
    known = list(sequences(inputs, tokenizer)[0])
    longest = max(len(ids) for ids in known)
    settings.check_reach(longest)
    place = None if output is None else Path(output)
    if place is not None:
        check_destination(place)
    work = Asked(settings, layers, longest)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="statesize-"))
        with ray_session(address) as ray, _crew(ray, model, work, cpus, gpus) as crew:
            ready = crew.open()
            origin = Origin(name or ready.name, ready.weights, ready.key, {**ready.source, **(source or {})}, cpus)
            where = Path(scratch) / "profile" if place is None else place
            units = stack.enter_context(open_units(where, ready.key))
            finished = place and finished_profile(place, ready.key, known, origin.model)
            if finished is not None:
                units.remove()
                return finished
            crew.measure(_unfinished(known, units, on_progress), units, len(known), on_progress)
        gathering = Gathering(settings, len(known), units, None)
        for ids in known:
            if not gathering.resume(ids):
                raise FileError(f"{units.folder} was changed while it was in use. Run the same again.")
        return gathering.profile(tokenizer, origin, place)


@contextmanager
def _crew(ray: Any, model: nn.Module | Loader, work: Asked, cpus: int, gpus: float) -> Generator[Crew]:
    load: Loader = model
    if isinstance(model, nn.Module):
        structure, weights = take_apart(model)
        load = partial(_rebuilt, structure, ray.put(weights))
    crew = Crew(ray, load, work, cpus, gpus)
    try:
        yield crew
    finally:
        crew.dismiss()


def _rebuilt(structure: Structure, weights: Any) -> nn.Module:
    return put_together(structure, importlib.import_module("ray").get(weights))


def _unfinished(known: list[Tensor], units: Units, on_progress: Callable[[Progress], None] | None) -> list[Job]:
    """The sequences that are not finished; the others are told of."""
    jobs: list[Job] = []
    for sequence, ids in enumerate(known):
        finished = units.whole(sequence, ids)
        if finished is None:
            jobs.append(Job(sequence, ids))
            continue
        for index, name in enumerate(finished[0]):
            record = units.read(sequence, ids, name)
            if on_progress is not None and record is not None:
                place = (sequence, len(known), index, len(finished[0]))
                on_progress(Progress(*place, name, record.engine, 0.0, resumed=True))
    return jobs
