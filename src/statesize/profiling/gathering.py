"""From measured sequences to a profile: what every run does with its records, wherever they were measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from statesize.errors import FileError
from statesize.files import only_writer
from statesize.loading.digests import tokens_sha256
from statesize.profiling.measuring import MOST_OPERATIONS
from statesize.profiling.profile import Profile
from statesize.profiling.units import Units
from statesize.results.record import SequenceRecord
from statesize.results.settings import Settings
from statesize.results.store import SCHEMA, check_destination, load_tree, open_tree, write_nodes
from statesize.results.tree import MixerRun, mixer_parts, token_dataset
from statesize.texts.tokens import AnyTokenizer
from statesize.version import installed


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


@dataclass(frozen=True)
class Origin:
    """What was measured, as a profile's attributes say it.

    Attributes:
        model: What tables call the model.
        weights: Digest of its weights.
        key: Digest of the run.
        source: Where the model comes from, and under "recipe" how the profile is repeated.
        threads: Of torch, in the process that measured.
    """

    model: str
    weights: str
    key: str
    source: Mapping[str, Any]
    threads: int


@dataclass(eq=False)
class Gathering:
    """The sequences of a run and what was measured of them, added in order.

    Attributes:
        settings: What is asked.
        count: Number of sequences, or None where the inputs do not say.
        units: Where records are kept; None keeps them in memory.
        on_progress: Told after each mixer of each sequence.
        sequences: Token ids so far.
        mixers: What is known of each mixer.
        skipped: What is not measured, and why.
        seconds: Time that measuring took, by whoever did it.
    """

    settings: Settings
    count: int | None
    units: Units | None
    on_progress: Callable[[Progress], None] | None
    sequences: list[Tensor] = field(default_factory=list[Tensor])
    mixers: dict[str, MixerRun] = field(default_factory=dict[str, MixerRun])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    _records: dict[tuple[str, int], SequenceRecord] = field(default_factory=dict[tuple[str, int], SequenceRecord])

    def resume(self, ids: Tensor) -> bool:
        """Begin the next sequence, and take it from its files if all its mixers are there.

        Args:
            ids: Its tokens.

        Returns:
            Whether they were.
        """
        sequence = len(self.sequences)
        self.sequences.append(ids)
        finished = None if self.units is None else self.units.whole(sequence, ids)
        if finished is None:
            return False
        names, skipped = finished
        for index, name in enumerate(names):
            self.add(sequence, self.read(name, sequence), index, len(names), resumed=True)
        self.skipped |= skipped
        return True

    def add(self, sequence: int, record: SequenceRecord, index: int, total: int, *, resumed: bool) -> None:
        """One more mixer of a sequence.

        Args:
            sequence: Index of the sequence.
            record: What was measured.
            index: Index of the mixer.
            total: Number of mixers.
            resumed: Whether an earlier run had measured it.
        """
        known = self.mixers.setdefault(record.name, MixerRun.begin(record))
        known.add(sequence, record)
        self.seconds += record.seconds
        if self.units is None:
            self._records[record.name, sequence] = record
        if self.on_progress is not None:
            seconds = 0.0 if resumed else record.seconds
            self.on_progress(Progress(sequence, self.count, index, total, record.name, record.engine, seconds, resumed))

    def read(self, mixer: str, sequence: int) -> SequenceRecord:
        """A record, from memory or from its file.

        Args:
            mixer: Name of the mixer.
            sequence: Index of the sequence.

        Returns:
            What was measured.

        Raises:
            FileError: If the file is gone or damaged.
        """
        if self.units is None:
            return self._records[mixer, sequence]
        record = self.units.read(sequence, self.sequences[sequence], mixer)
        if record is None:
            raise FileError(
                f"{self.units.folder} was changed while it was in use: mixer {mixer} of sequence {sequence} is missing "
                "or damaged. Run the same command again; what is intact is kept."
            )
        return record

    def profile(self, tokenizer: AnyTokenizer | None, origin: Origin, output: Path | None) -> Profile:
        """Put all records together.

        Args:
            tokenizer: Gives the tokens that plots show.
            origin: What was measured.
            output: Folder for the profile, with units, which are removed; None keeps it in memory.

        Returns:
            The profile; with `output`, it reads from there.
        """
        lengths = [len(ids) for ids in self.sequences]
        self.settings.check_reach(max(lengths))
        root = token_dataset(self.sequences, tokenizer)
        facts = {"model": origin.model, "weights_sha256": origin.weights, "run_sha256": origin.key}
        source = {name: value for name, value in origin.source.items() if name != "recipe"}
        recipe = {"recipe": origin.source["recipe"]} if "recipe" in origin.source else {}
        root.attrs |= facts | {"source": source, "threads": origin.threads} | recipe | self._attributes()
        nodes = (
            (mixer.name, mixer_parts(mixer, lengths, self.settings, self.read, whole=output is None))
            for mixer in self.mixers.values()
        )
        if output is None or self.units is None:
            parts = {f"/{mixer}": next(iter(datasets)) for mixer, datasets in nodes}
            return Profile(xr.DataTree.from_dict({"/": root} | parts))
        # What a kill leaves half-written goes with the units, once the same command has finished.
        write_nodes(output, root, nodes, scratch=self.units.folder)
        self.units.remove()
        return Profile(open_tree(output))

    def _attributes(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "mixers": list(self.mixers),
            "versions": installed("torch", "numpy"),
            "tokens_sha256": tokens_sha256(self.sequences),
            "tolerances": list(self.settings.tolerances),
            "relative_tolerances": list(self.settings.relative_tolerances),
            "settings": _settings(self.settings),
            "skipped": self._skipped(),
            "seconds": round(self.seconds, 3),
        }

    def _skipped(self) -> dict[str, str]:
        """What is not measured, and why; of what is measured in some sequences, in how many."""
        skipped = dict(self.skipped)
        for name in self.mixers.keys() & skipped.keys():
            measured, all_of_them = len(self.mixers[name].sequences), len(self.sequences)
            skipped[name] = f"Measured in {measured} of {all_of_them} sequences; in the others: {skipped[name]}"
            if measured == all_of_them:
                del skipped[name]
        return skipped


@contextmanager
def open_units(output: Path, key: str) -> Generator[Units]:
    """The folder of units beside an output, kept from other processes.

    A place where the profile cannot be written, one that another process writes to, or a folder there that holds
    something else, is a FileError.

    Args:
        output: Folder for the profile.
        key: Digest of the run.

    Yields:
        The units.
    """
    check_destination(output)
    units = Units(output.with_name(f"{output.name}.units"), key)
    units.open()
    with only_writer(units.folder):
        yield units


def finished_profile(output: Path, key: str, sequences: Sequence[Tensor], name: str) -> Profile | None:
    """The profile of this very run, if it is there: it was killed while it tidied up, or is asked for once more.

    Args:
        output: Folder for the profile.
        key: Digest of the run.
        sequences: Its sequences; none where they are not known beforehand.
        name: What tables call the model.

    Returns:
        The profile, read from there, or None.
    """
    try:
        attributes = load_tree(output).attrs
    except FileError:
        return None
    same = (attributes["model"], attributes.get("run_sha256")) == (name, key)
    whole = same and bool(sequences) and attributes["tokens_sha256"] == tokens_sha256(sequences)
    return Profile(open_tree(output)) if whole else None


def _settings(settings: Settings) -> dict[str, Any]:
    # As JSON has them, so that a profile that was read equals the one that was saved.
    values = asdict(settings) | {"most_operations": MOST_OPERATIONS}
    return json.loads(json.dumps(values))
