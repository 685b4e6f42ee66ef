"""Profile a model: every mixer over every sequence, a block of heads or channels at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from statesize.adapters.models.inputs import float_model
from statesize.errors import InputError
from statesize.io.progress import Bars
from statesize.measurement.settings import (
    ENTROPY_ACCURACY,
    MEMORY,
    Channels,
    Settings,
    Weights,
    check_settings,
)
from statesize.models.load import kernels, load_model, model_facts
from statesize.parallel.executor import SerialExecutor
from statesize.profiling.measuring import Layers
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
from statesize.spectra.engine import EngineName
from statesize.texts.arguments import Given, Labels, position_labels
from statesize.texts.inputs import Inputs, bundled_sequences, given_sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer


def profile(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    labels: Labels = None,
    layers: Layers = None,
    channels: Channels = None,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] | None = None,
    positions: int | Sequence[int] | Literal["all"] | None = None,
    stride: int | None = None,
    past: int | None = None,
    future: int | None = None,
    engine: EngineName = "auto",
    seed: int = 0,
    memory: int | str = MEMORY,
    count_accuracy: float | None = None,
    entropy_accuracy: float = ENTROPY_ACCURACY,
    weights: Weights = "none",
    skip_first: int = 0,
    squares: bool = False,
    mixes: Mapping[str, str] | None = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
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
        labels: What tables and pages show for the positions in place of tokens or numbers: one text each, or a list of
            these for each sequence.
        layers: Mixers to measure, by index or module name, one or several; None takes all.
        channels: Heads or channels of each mixer that are measured: "all", or a number, drawn from all parts of the
            layer; None takes all where they cost at most `statesize.profiling.MOST_OPERATIONS` a sequence.
        tolerances: Absolute tolerances τ of the tolerance-ESS.
        relative_tolerances: Tolerances ρ relative to σ_1 at each position; tables show the first. None takes 0.01,
            and where no text is longer than 1,024 tokens nine more, from which reports draw ESS against ρ; 0.01 alone
            for files and iterators, whose texts are read as they come.
        positions: Positions to measure: "all", an int for that many evenly spread, or the positions; a sequence that
            is too short for some of these is measured at the others. None takes all of a sequence of up to 16,384
            tokens, and 32 of a longer one.
        stride: Measure every so many positions, instead of `positions`.
        past: Cut H_i to its last `past` columns; positions at which that does not fit are left out.
        future: Cut H_i to its first `future` rows, likewise.
        engine: An engine of `statesize.measure`.
        seed: Seed of the choice of heads or channels.
        memory: Bytes that measuring may hold at once, as a number or such as "4GB", beside model and results:
            operators, attention maps and spectra. Where one head takes more, an InputError says how much would do.
        count_accuracy: How far apart bounds on counts at relative tolerances may be left, as for `statesize.measure`;
            0 takes exact counts, None those of sequences of up to 1,024 positions.
        entropy_accuracy: Relative accuracy of entropies, likewise.
        weights: "values" measures, beside the default, at three cuts, H_i with each column times the norm of what it
            carries (Kobayashi et al. 2020).
        skip_first: First columns of T that this variant leaves out, such as that of an attention sink.
        squares: Whether it takes the entropy of σ² in place of σ.
        mixes: On what the T of layers of one's own act, as for `statesize.capture`.
        output: Folder for the profile.
        name: What tables call the model; None takes the argument, or the name of its class.
        source: Where the model comes from, stored with the profile; under "recipe", how `statesize rerun` repeats it.
        on_progress: Called after each mixer of each sequence, instead of the bar.

    Returns:
        A Profile of all mixers, sequences and positions; position 0, where nothing has passed, holds ESS 0. With
        `output`, it reads from that folder.
    """
    settings = check_settings(
        tolerances, relative_tolerances, positions, engine,
        stride=stride, past=past, future=future, channels=channels, seed=seed, memory=memory,
        count_accuracy=count_accuracy, entropy_accuracy=entropy_accuracy,
        weights=weights, skip_first=skip_first, squares=squares, mixes=mixes,
    )  # fmt: skip
    return warned(run_profile(
        model, inputs, settings,
        tokenizer=tokenizer, axis=axis, labels=labels, layers=layers, output=output, name=name, source=source,
        on_progress=on_progress,
    ))  # fmt: skip


def run_profile(
    model: nn.Module | str,
    inputs: Inputs | None,
    settings: Settings,
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    axis: int | None = None,
    labels: Labels = None,
    layers: Layers = None,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
) -> Profile:
    """`profile` with checked settings."""
    tokenizer = supported_tokenizer(tokenizer)
    path = None if output is None else Path(output)
    if isinstance(model, str):
        loaded = load_model(model, needs_tokenizer=tokenizer is None and inputs is None)
        model, tokenizer, source = loaded.model, tokenizer or loaded.tokenizer, source or loaded.source
        name = name or loaded.name
    model, stored = float_model(model)
    name = name or type(model).__name__
    iterator, count = given_sequences(model, _bundled(tokenizer) if inputs is None else inputs, tokenizer, axis)
    given: Iterable[Given] = iterator
    known: list[Given] = []
    reference = None
    if count is not None:
        # They lie in memory already: what is wrong with any of them shows before the work.
        given = known = list(iterator)
        reference = max(map(len, known))
        settings.check_reach(reference)
    shown = position_labels(labels, known)
    settings = settings.for_texts(reference)
    facts = model_facts(model)
    key = run_key(facts, settings, layers, reference)
    known_source = ({"weights": stored} if stored else {}) | dict(source or {})
    origin = Provenance(name, str(facts["weights"]), key, known_source, torch.get_num_threads(), kernels(model))
    bars = Bars(on_progress is not None, lines=False)
    with nullcontext() if path is None else open_parts(path) as parts, bars:
        if path is not None and (finished := finished_profile(path, origin.key, known, name, shown)) is not None:
            return finished
        run = ProfileRun(settings, origin.key, count, parts, on_progress or profile_bar(bars, name, count), reference)
        run.measure(given, SerialExecutor(SequenceWork(model, layers, settings)))
        return run.profile(tokenizer, origin, path, shown)


def _bundled(tokenizer: AnyTokenizer | None) -> Inputs:
    if tokenizer is None:
        raise InputError("inputs must be token ids for a model without a tokenizer, got none. Give token ids, or both.")
    return bundled_sequences(tokenizer)
