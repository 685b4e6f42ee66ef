"""Profile a model: every mixer over every sequence, a block of heads or channels at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters import Checking, Checks
from statesize.adapters.models.checks import measurable
from statesize.loading.digests import weights_sha256
from statesize.profiling.gathering import Gathering, Origin, Progress, finished_profile, open_units
from statesize.profiling.measuring import Layers, capture_mixers, measure_mixer, measured_names, plan_work
from statesize.profiling.profile import Profile
from statesize.profiling.units import run_key
from statesize.results.settings import MEMORY, Channels, check_settings
from statesize.texts.inputs import Inputs, sequences
from statesize.texts.tokens import AnyTokenizer


def profile(
    model: nn.Module,
    inputs: Inputs,
    *,
    tokenizer: AnyTokenizer | None = None,
    layers: Layers = None,
    channels: Channels = None,
    tolerances: Sequence[float] = (1e-3,),
    relative_tolerances: Sequence[float] = (1e-2,),
    positions: int | Sequence[int] | None = None,
    stride: int | None = None,
    past: int | None = None,
    future: int | None = None,
    engine: str = "auto",
    seed: int = 0,
    memory: int | str = MEMORY,
    count_accuracy: float = 0.0,
    output: str | PathLike[str] | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Profile:
    """Measure the effective state-size of every mixer of a model over inputs.

    Sequences are run one after another, and each mixer is measured in blocks of heads or channels that fit `memory`.
    Operators come in the model's dtype and are measured in float64.
    With `output`, what is finished is kept in files beside it, in the folder of the same name with `.units`: the same
    call after a crash or an interrupt goes on from there, and memory does not grow with the number of sequences. Once
    the profile is complete, the same call returns it.
    Wrong inputs, tolerances, positions or layers, and operators that are not finite, are an InputError; a model
    without mixers, or with one whose heads change from sequence to sequence, is a ModelError; an output that cannot be
    written is a FileError.

    Args:
        model: A model of which some modules have a method `operator(hidden)`; see `statesize.capture`.
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, a Path of a text, JSONL or Parquet
            file, what a tokenizer returns, or an iterable of these.
        tokenizer: Turns text into ids, and ids into the tokens that plots and reports show; of `tokenizers` or of
            transformers.
        layers: Mixers to measure, by index or module name, one or several; None takes all.
        channels: Heads or channels of each mixer that are measured: "all", or a number, drawn from all parts of the
            layer; None takes all where they cost at most `statesize.profiling.MOST_OPERATIONS` a sequence.
        tolerances: Absolute tolerances τ of the tolerance-ESS.
        relative_tolerances: Tolerances ρ relative to σ_1 at each position.
        positions: Positions to measure: None for all, an int for that many evenly spread, or the positions; a
            sequence that is too short for some of these is measured at the others.
        stride: Measure every so many positions, instead of `positions`.
        past: Cut H_i to its last `past` columns; positions at which that does not fit are left out.
        future: Cut H_i to its first `future` rows, likewise.
        engine: An engine of `statesize.measure`.
        seed: Of the choice of heads or channels.
        memory: Bytes that measuring may hold at once, as a number or such as "4GB", beside model and results.
        count_accuracy: Counts at relative tolerances may be left between bounds this share apart, many times faster
            where H_i has full rank; 0 asks for exact ones.
        output: Folder for the profile.
        name: What tables call the model; None takes the name of its class.
        source: Where the model comes from, kept with the profile, and under "recipe" how `statesize rerun` repeats it.
        on_progress: Called after each mixer of each sequence.

    Returns:
        A Profile of all mixers, sequences and positions; position 0, where nothing has passed, holds ESS 0. With
        `output`, it reads from that folder.
    """
    settings = check_settings(
        tolerances, relative_tolerances, positions, engine,
        stride=stride, past=past, future=future, channels=channels, seed=seed, memory=memory,
        count_accuracy=count_accuracy,
    )  # fmt: skip
    model = measurable(model)
    name, output = name or type(model).__name__, None if output is None else Path(output)
    iterator, count = sequences(inputs, tokenizer)
    known: list[Tensor] = []
    reference = None
    if count is not None:
        # They lie in memory already: what is wrong with any of them shows before the work.
        known = list(iterator)
        reference = max(len(ids) for ids in known)
        settings.check_reach(reference)
        iterator = iter(known)
    weights = weights_sha256(model)
    key = run_key(model, weights, settings, layers, reference)
    with nullcontext() if output is None else open_units(output, key) as units:
        if output is not None and units is not None:
            finished = finished_profile(output, key, known, name)
            if finished is not None:
                units.remove()
                return finished
        gathering, checking = Gathering(settings, count, units, on_progress), Checking("read")
        for ids in iterator:
            # Without a list of sequences, the first says how many heads or channels all others are measured for.
            reference = reference or len(ids)
            if not gathering.resume(ids):
                _measure(model, layers, gathering, reference, checking.next(model))
        origin = Origin(name, weights, key, source or {}, torch.get_num_threads())
        return gathering.profile(tokenizer, origin, output)


def _measure(model: nn.Module, layers: Layers, gathering: Gathering, reference: int, checks: Checks) -> None:
    """Measure the last sequence of a gathering."""
    sequence, ids = len(gathering.sequences) - 1, gathering.sequences[-1]
    settings, units = gathering.settings, gathering.units
    captured = capture_mixers(model, sequence, ids, layers, checks)
    names = [mixer.name for mixer in captured.mixers]
    for index, item in enumerate(captured):
        record = None if units is None else units.read(sequence, ids, item.name)
        resumed = record is not None
        if record is None:
            work = plan_work(item, sequence, len(ids), reference, settings)
            record = measure_mixer(item, sequence, work, settings)
            if units is not None:
                units.write(sequence, ids, record)
        gathering.add(sequence, record, index, len(names), resumed=resumed)
        # The loop variables would keep this operator alive while the next is built.
        del item, record
    if units is not None:
        units.finish(sequence, ids, measured_names(names, captured.skipped), captured.skipped)
    gathering.skipped |= captured.skipped
