"""Profile a model: every mixer over every sequence, a block of heads or channels at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from torch import nn

from statesize.adapters import Captured
from statesize.adapters.capture import Request, capture_module
from statesize.adapters.models.quantised import float_model, measurable
from statesize.check import require_kind
from statesize.io.callers import warn_caller
from statesize.io.devices import on_cpu_by_default
from statesize.io.files import parts_writer
from statesize.io.progress import Bar
from statesize.io.text import counted
from statesize.measurement.settings import Channels, Layers, Positions, Settings, given_settings
from statesize.models.class_sources import tell_without_source
from statesize.models.load import given_model, load_model, load_model_facts
from statesize.parallel.ray import OnRay, RayCluster
from statesize.parallel.threads import one_by_one
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import ProfileProgress, ProfileRun, earlier_profile, profile_bar
from statesize.profiling.sequences import Loader, Provenance, loaded_work
from statesize.report.words import by_reason
from statesize.results.place import check_destination
from statesize.texts.inputs import Given, Inputs, bundled_sequences, given_sequences, inputs_of
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer

# A process with torch and its libraries, before it holds a model.
_PROCESS_BYTES = 5 * 10**8


@on_cpu_by_default
def profile(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    tokenizer: AnyTokenizer | None = None,
    axis: int | None = None,
    layers: Layers = None,
    channels: Channels = None,
    positions: Positions = None,
    tolerances: Sequence[float] | None = None,
    relative_tolerances: Sequence[float] | None = None,
    memory: int | str | None = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    executor: RayCluster | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
    settings: Settings | None = None,
) -> Profile:
    """Measure the effective state-size (ESS) of every layer of a model over text.

    Models of Hugging Face transformers work, by their name (`ss.profile("gpt2")`) or as objects, and so do the bundled
    models, folders with a checkpoint, and many causal torch modules of your own; others are refused with the cause.
    A bar shows the progress in a terminal, unless there is an `on_progress`.

    Sequences are run one after another, and each mixer is measured in blocks of heads or channels that fit `memory`.
    Operators come in the model's dtype and are measured in float64.
    With `output`, finished parts are stored in files beside it, in the folder of the same name with `.units`: the same
    call after a crash or an interrupt goes on from there. Once the profile is complete, the same call returns it.
    Wrong inputs, tolerances, positions or layers, and operators that are not finite, are an InputError; a model
    without mixers, or with one whose heads change from sequence to sequence, is a ModelError; an output that cannot be
    written is a FileError. Where only some mixers can be measured, a StatesizeWarning names the others, with the cause.

    Args:
        model: A model; or the name of a bundled one, the folder of one, or the id of one on the Hugging Face hub,
            which is loaded with its tokenizer. See `statesize.capture` for models of your own.
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, a Path of a text, JSONL, Parquet
            or JSON of ids, what a tokenizer returns, an iterable of these; or what else the model takes, such as frames
            (S, L, W) of sound or of a time series, or a mapping to its arguments, as for `statesize.capture`. None
            takes bundled documents.
        tokenizer: Turns text into ids, and ids into the tokens that plots and reports show; of `tokenizers`
            or of transformers. A model by its name brings its own.
        axis: The dimension of positions, as for `statesize.capture`.
        layers: As in `statesize.Settings`, by index or module name.
        channels: As in `statesize.Settings`, "all" or a number.
        positions: As in `statesize.Settings`, "all", a number, or a list.
        tolerances: As in `statesize.Settings`, absolute.
        relative_tolerances: As in `statesize.Settings`, relative to σ_1.
        memory: Bytes that measuring may hold at once, as a number or such as "4GB", beside model and results:
            operators, attention maps and spectra. Where one head takes more, an InputError says how much would do.
        output: Folder for the profile.
        name: What tables call the model; None takes the argument, or the name of its class.
        executor: Spreads the sequences over processes on Ray; None measures in this process.
        on_progress: Called after each mixer of each sequence, instead of the bar.
        settings: What is measured beside the arguments above, which go before it; None takes `statesize.Settings()`.

    Returns:
        A Profile of all mixers and sequences; position 0, where nothing has passed, holds ESS 0.
    """
    settings = given_settings(
        settings, layers=layers, channels=channels, positions=positions, tolerances=tolerances,
        relative_tolerances=relative_tolerances, memory=memory,
    )  # fmt: skip
    require_kind("executor", executor, (RayCluster, type(None)), "a RayCluster or None")
    measured = run_profile(
        model, inputs, settings, tokenizer=tokenizer, axis=axis, output=output, name=name,
        cluster=executor, on_progress=on_progress,
    )  # fmt: skip
    if not measured.tree.attrs["skipped"]:
        return measured
    # Which layers lack a measurement, in all or in some sequences.
    if lost := measured.not_measured:
        layers = counted(len(measured.mixers) + len(lost), "layer")
        causes = "; ".join(f"{names}: {cause}" for names, cause in by_reason(lost).items())
        warn_caller(f"{len(lost)} of {layers} of {measured.model} could not be measured: {causes}")
    for names, cause in by_reason(measured.incomplete).items():
        warn_caller(f"{names} of {measured.model}: {cause}")
    return measured


def run_profile(
    model: nn.Module | str | Loader,
    inputs: Inputs | None,
    settings: Settings,
    *,
    tokenizer: AnyTokenizer | None = None,
    axis: int | None = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    cluster: RayCluster | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
) -> Profile:
    """`profile` of a model of which the caller may know the source, without a warning."""
    # The profile of a cluster is that of this process: the same bit for bit where that is set to as many threads as a
    # process there has cores, else within the bounds that it states. With an output, both go on from each other's
    # files. A model by its name, or a function that loads it, is loaded in each process, so that no weights are sent.
    tokenizer = None if tokenizer is None else supported_tokenizer(tokenizer)
    require_kind("name", name, (str, type(None)), "text")
    path = None if output is None else Path(output)
    if path is not None:
        check_destination(path, "output")
    stored: dict[str, Any] = {}
    if isinstance(model, str) and cluster is not None:
        tokenizer = tokenizer or load_model_facts(model, needs_tokenizer=inputs is None)[0]
        model, name = partial(load_model, model, needs_tokenizer=False), name or model
    elif isinstance(model, str):
        loaded = given_model(model, tokenizer, name, needs_tokenizer=inputs is None)
        model, tokenizer, name, source = loaded.model, loaded.tokenizer, loaded.name, source or loaded.source
    # What each process loads comes in floating point.
    if cluster is None or isinstance(model, nn.Module):
        model, weights = float_model(model)
        stored |= {"weights": weights} if weights else {}
    here = model if isinstance(model, nn.Module) else None
    if inputs is None:
        inputs, stored["texts"] = bundled_sequences(tokenizer), "bundled documents"
    # Where positions lie is asked of the model; one that each process loads is not there.
    # What is wrong with any of them shows before the work.
    given = list[Given](given_sequences(here, inputs, tokenizer, axis))
    reference = max(map(len, given))
    settings.check_reach(reference)
    settings = settings.for_texts(reference)
    # Digests say whether what is stored is of this run; of one that is not they would only take time. A class without
    # a source is another one in each run, and the same in all processes of one.
    digests = cluster is not None or path is not None
    make = partial(loaded_work, model, settings, reference, digests=digests, unknown=uuid4().hex)
    if path is not None and here is not None:
        tell_without_source(here)
    with ExitStack() as stack:
        if cluster is None:
            executor = partial(one_by_one, make())
        else:
            executor = stack.enter_context(cluster(make, settings.memory + _PROCESS_BYTES))
        origin: Provenance = next(executor(["loading the model"])).get()
        if isinstance(executor, OnRay):
            executor.memory += origin.bytes
        name = name or str(origin.attributes["model"])
        source = {**stored, **origin.attributes["source"], **(source or {})}
        origin = replace(origin, attributes={**origin.attributes, "model": name, "source": source})
        folder = None if path is None else path.with_name(f"{path.name}.units")
        again = None if here is None else partial(_recaptured, here, given)
        if path is not None and folder is not None:
            stack.enter_context(parts_writer(folder, r"\d{6,}"))
            if (earlier := earlier_profile(path, origin.key, given, name)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                return replace(earlier, recapture=again)
        if on_progress is None and Console(stderr=True).is_terminal:
            on_progress = profile_bar(stack.enter_context(Bar(f"profiling {name}", lines=False)), len(given))
        run = ProfileRun(settings, origin.key, given, folder, on_progress)
        run.measure(executor)
        return replace(run.profile(tokenizer, origin, path), recapture=again)


def _recaptured(model: nn.Module, sequences: Sequence[Given], name: str, sequence: int) -> Captured:
    """A mixer of a model, run over a sequence once more."""
    inputs, axis = inputs_of(sequences[sequence])
    return next(iter(capture_module(measurable(model), inputs, Request([name], checks="read", axis=axis))))
