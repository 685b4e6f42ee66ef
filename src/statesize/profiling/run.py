"""Profile a model: every mixer over every sequence, a block of heads or channels at a time."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from statesize.adapters import Capture, capture
from statesize.errors import FileError, InputError
from statesize.profiling.digests import tokens_sha256, weights_sha256
from statesize.profiling.inputs import Inputs, sequences
from statesize.profiling.measuring import MOST_OPERATIONS, measure_mixer, plan_work
from statesize.profiling.profile import Profile
from statesize.profiling.record import SequenceRecord
from statesize.profiling.settings import MEMORY, Channels, Settings, check_settings
from statesize.profiling.store import SCHEMA, check_destination, load_tree, open_tree, write_nodes
from statesize.profiling.tokens import AnyTokenizer
from statesize.profiling.tree import MixerRun, mixer_parts, token_dataset
from statesize.profiling.units import Units, run_key
from statesize.version import __version__

Layers = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class Progress:
    """Where a profile stands, told after each mixer of each sequence.

    Attributes:
        sequence: Index of the sequence.
        sequences: Number of sequences, or None where the inputs do not say.
        mixer: Index of the mixer that was just measured.
        mixers: Number of mixers.
        name: Its name.
        engine: The engine that measured it.
        seconds: Seconds that measuring it took.
        resumed: Whether an earlier run had measured it.
    """

    sequence: int
    sequences: int | None
    mixer: int
    mixers: int
    name: str
    engine: str
    seconds: float
    resumed: bool = False


@dataclass(eq=False)
class _Run:
    model: nn.Module
    layers: Layers
    settings: Settings
    reference: int | None
    count: int | None
    units: Units | None
    on_progress: Callable[[Progress], None] | None
    sequences: list[Tensor] = field(default_factory=list[Tensor])
    mixers: dict[str, MixerRun] = field(default_factory=dict[str, MixerRun])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    _records: dict[tuple[str, int], SequenceRecord] = field(default_factory=dict[tuple[str, int], SequenceRecord])

    def measure(self, ids: Tensor) -> None:
        """One more sequence."""
        sequence = len(self.sequences)
        self.sequences.append(ids)
        # Without a list of sequences, the first says how many heads or channels all others are measured for.
        self.reference = self.reference or len(ids)
        if self._resume(sequence, ids):
            return
        captured = self._captured(sequence, ids)
        names = [mixer.name for mixer in captured.mixers]
        for index, item in enumerate(captured):
            record = None if self.units is None else self.units.read(sequence, ids, item.name)
            resumed = record is not None
            if record is None:
                work = plan_work(item, sequence, len(ids), self.reference, self.settings)
                record = measure_mixer(item, sequence, work, self.settings)
                if self.units is not None:
                    self.units.write(sequence, ids, record)
            self._add(sequence, record, index, len(names), resumed=resumed)
            # The loop variables would keep this operator alive while the next is built.
            del item, record
        if self.units is not None:
            self.units.finish(sequence, ids, names, captured.skipped)
        self.skipped |= captured.skipped

    def read(self, mixer: str, sequence: int) -> SequenceRecord:
        """A record, from memory or from its file."""
        if self.units is None:
            return self._records[mixer, sequence]
        record = self.units.read(sequence, self.sequences[sequence], mixer)
        if record is None:
            raise FileError(
                f"{self.units.folder} was changed while it was in use: mixer {mixer} of sequence {sequence} is missing "
                "or damaged. Run the same command again; what is intact is kept."
            )
        return record

    def _resume(self, sequence: int, ids: Tensor) -> bool:
        """Take a sequence from its files, if all mixers are there."""
        finished = None if self.units is None else self.units.finished(sequence, ids)
        if self.units is None or finished is None:
            return False
        names, skipped = finished
        # Twice, so that no more than one record is in memory: nothing may be added before all are known to be whole.
        if any(self.units.read(sequence, ids, name) is None for name in names):
            return False
        for index, name in enumerate(names):
            self._add(sequence, self.read(name, sequence), index, len(names), resumed=True)
        self.skipped |= skipped
        return True

    def _add(self, sequence: int, record: SequenceRecord, index: int, total: int, *, resumed: bool) -> None:
        known = self.mixers.setdefault(record.name, MixerRun.begin(record))
        known.add(sequence, record)
        self.seconds += record.seconds
        if self.units is None:
            self._records[record.name, sequence] = record
        if self.on_progress is not None:
            seconds = 0.0 if resumed else record.seconds
            self.on_progress(Progress(sequence, self.count, index, total, record.name, record.engine, seconds, resumed))

    def _captured(self, sequence: int, ids: Tensor) -> Capture:
        try:
            return capture(self.model, ids[None], self.layers)
        except IndexError as error:
            raise InputError(
                f"The model refused sequence {sequence} of {len(ids)} tokens with ids up to {int(ids.max())}: {error}. "
                "Check that the ids come from the model's own tokenizer and that the sequence is not too long for it."
            ) from error


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
    source: Mapping[str, str] | None = None,
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
        inputs: Token ids (L,) or (S, L), lists of ids of any lengths, text, a Path of a text or JSONL file, or an
            iterable of these.
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
        source: Where the model comes from, kept with the profile.
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
    units = None if output is None else _open_units(output, key)
    if output is not None and units is not None and _is_finished(output, key, known, name):
        units.remove()
        return Profile(open_tree(output))
    run = _Run(model, layers, settings, reference, count, units, on_progress)
    for ids in iterator:
        run.measure(ids)
    settings.check_reach(max(len(ids) for ids in run.sequences))
    root = token_dataset(run.sequences, tokenizer)
    facts = {"model": name, "weights_sha256": weights, "run_sha256": key, "source": dict(source or {})}
    root.attrs |= facts | _attributes(run)
    return _gathered(run, root, output)


def _open_units(output: Path, key: str) -> Units:
    check_destination(output)
    units = Units(output.with_name(f"{output.name}.units"), key)
    units.open()
    return units


def _is_finished(output: Path, key: str, sequences: Sequence[Tensor], name: str) -> bool:
    """Whether the profile of this very run is there: it was killed while it tidied up, or is asked for once more."""
    try:
        attributes = load_tree(output).attrs
    except FileError:
        return False
    same = (attributes["model"], attributes.get("run_sha256")) == (name, key)
    return same and bool(sequences) and attributes["tokens_sha256"] == tokens_sha256(sequences)


def _gathered(run: _Run, root: xr.Dataset, output: Path | None) -> Profile:
    lengths = [len(ids) for ids in run.sequences]
    nodes = (
        (mixer.name, mixer_parts(mixer, lengths, run.settings, run.read, whole=run.units is None))
        for mixer in run.mixers.values()
    )
    if output is None or run.units is None:
        parts = {f"/{mixer}": next(iter(datasets)) for mixer, datasets in nodes}
        return Profile(xr.DataTree.from_dict({"/": root} | parts))
    # What a kill leaves half-written goes with the units, once the same command has finished.
    write_nodes(output, root, nodes, scratch=run.units.folder)
    run.units.remove()
    return Profile(open_tree(output))


def _attributes(run: _Run) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "mixers": list(run.mixers),
        "versions": _versions(),
        "tokens_sha256": tokens_sha256(run.sequences),
        "tolerances": list(run.settings.tolerances),
        "relative_tolerances": list(run.settings.relative_tolerances),
        "settings": _settings(run.settings),
        "skipped": {part: reason for part, reason in run.skipped.items() if part not in run.mixers},
        "seconds": round(run.seconds, 3),
    }


def _settings(settings: Settings) -> dict[str, Any]:
    # As JSON has them, so that a profile that was read equals the one that was saved.
    values = asdict(settings) | {"most_operations": MOST_OPERATIONS}
    return json.loads(json.dumps(values))


def _versions() -> dict[str, str]:
    return {
        "statesize": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
