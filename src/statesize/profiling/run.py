"""Profile a model: every mixer over every sequence, a block of heads or channels at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.adapters.models.inputs import float_model
from statesize.io.progress import Bars
from statesize.measurement.settings import Channels, Layers, Positions, Settings
from statesize.models.load import kernels, load_model, model_facts
from statesize.parallel.executor import RayCluster, SerialExecutor
from statesize.profiling.profile import Profile, warned
from statesize.profiling.profile_run import (
    ProfileProgress,
    ProfileRun,
    Provenance,
    finished_profile,
    open_parts,
    profile_bar,
)
from statesize.profiling.sequences import SequenceWork, run_key
from statesize.texts.arguments import Given
from statesize.texts.inputs import Inputs, given_sequences, or_bundled
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer


def profile(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
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
    models, folders with a checkpoint, and any causal torch module of your own.
    A bar shows the progress in a terminal, unless there is an `on_progress`.

    Sequences are run one after another, and each mixer is measured in blocks of heads or channels that fit `memory`.
    Operators come in the model's dtype and are measured in float64.
    With `output`, finished parts are stored in files beside it, in the folder of the same name with `.units`: the same
    call after a crash or an interrupt goes on from there, and memory does not grow with the number of sequences. Once
    the profile is complete, the same call returns it.
    Wrong inputs, tolerances, positions or layers, and operators that are not finite, are an InputError; a model
    without mixers, or with one whose heads change from sequence to sequence, is a ModelError; an output that cannot be
    written is a FileError. Where only some mixers can be measured, a StatesizeWarning names the others, with the cause.

    Args:
        model: A model; or the name of a bundled one, the folder of one, or the id of one on the Hugging Face hub,
            which is loaded with its tokenizer. See `statesize.capture` for models of your own.
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, a Path of a text, JSONL or Parquet
            file, what a tokenizer returns, or an iterable of these; or whatever else the model takes, such as frames
            (S, L, W) of sound or of a time series, or a mapping to its arguments, as for `statesize.capture`. None
            takes bundled documents.
        tokenizer: Turns text into ids, and ids into the tokens that plots and reports show; of `tokenizers`, of
            transformers or of tiktoken, or a function from a text to ids. A model by its name brings its own.
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
        A Profile of all mixers, sequences and positions; position 0, where nothing has passed, holds ESS 0. With
        `output`, it reads from that folder.
    """
    settings = (settings or Settings()).given(
        layers=layers, channels=channels, positions=positions, tolerances=tolerances,
        relative_tolerances=relative_tolerances, memory=memory,
    )  # fmt: skip
    run = run_profile
    if executor is not None:
        from statesize.profiling.on_ray import run_on_ray

        run = partial(run_on_ray, cluster=executor)
    return warned(run(
        model, inputs, settings,
        tokenizer=tokenizer, axis=axis, output=output, name=name, on_progress=on_progress,
    ))  # fmt: skip


def run_profile(
    model: nn.Module | str,
    inputs: Inputs | None,
    settings: Settings,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
) -> Profile:
    """`profile` in this process, of a model of which the caller knows the source, and without a warning."""
    tokenizer = supported_tokenizer(tokenizer)
    path = None if output is None else Path(output)
    if isinstance(model, str):
        loaded = load_model(model, needs_tokenizer=tokenizer is None and inputs is None)
        model, tokenizer, source = loaded.model, tokenizer or loaded.tokenizer, source or loaded.source
        name = name or loaded.name
    model, stored = float_model(model)
    name = name or type(model).__name__
    iterator, count = given_sequences(model, or_bundled(inputs, tokenizer), tokenizer, axis)
    given: Iterable[Given] = iterator
    known: list[Given] = []
    reference = None
    if count is not None:
        # They lie in memory already: what is wrong with any of them shows before the work.
        given = known = list(iterator)
        reference = max(map(len, known))
        settings.check_reach(reference)
    settings = settings.for_texts(reference)
    weights = key = ""
    if path is not None:
        # Digests say whether what is stored is of this run; of one that is not they would only take time.
        facts = model_facts(model)
        weights, key = str(facts["weights"]), run_key(facts, settings, reference)
    known_source = ({"weights": stored} if stored else {}) | dict(source or {})
    origin = Provenance(name, weights, key, known_source, torch.get_num_threads(), kernels(model))
    bars = Bars(on_progress is not None, lines=False)
    with nullcontext() if path is None else open_parts(path) as parts, bars:
        if path is not None and (finished := finished_profile(path, key, known, name)) is not None:
            return finished
        run = ProfileRun(settings, key, count, parts, on_progress or profile_bar(bars, name, count), reference)
        run.measure(given, SerialExecutor(SequenceWork(model, settings)))
        return run.profile(tokenizer, origin, path)
