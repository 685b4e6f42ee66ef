"""From measured sequences to a profile: what every run does with its datasets, wherever they were measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from statesize.adapters.observation import SHARED
from statesize.adapters.select import NothingMeasuredError
from statesize.codes import Code, Note
from statesize.errors import FileError
from statesize.io.callers import warn_caller
from statesize.io.files import Parts
from statesize.io.progress import Bar
from statesize.io.text import counted
from statesize.measurement.settings import Settings
from statesize.parallel.threads import Executor, run
from statesize.profiling.profile import Profile
from statesize.profiling.sequences import MixerDone, Provenance, SequenceDone, SequenceTask
from statesize.profiling.work import MOST_OPERATIONS
from statesize.results.datasets import joined_mixer, token_dataset
from statesize.results.place import SCHEMA
from statesize.results.store import dataset_from_bytes, dataset_to_bytes, node_name, read_tree
from statesize.texts.inputs import Given, tokens_sha256
from statesize.texts.tokens import AnyTokenizer
from statesize.version import installed


@dataclass(frozen=True)
class ProfileProgress:
    """How far a profile is, after each mixer of each sequence.

    Attributes:
        sequence: Index of the sequence.
        sequences: Number of sequences.
        mixer: Index of the mixer that was just measured.
        mixers: Number of mixers.
        name: Its name.
        resumed: Whether an earlier run had measured it.
    """

    sequence: int
    sequences: int
    mixer: int
    mixers: int
    name: str
    resumed: bool = False


@dataclass(eq=False)
class ProfileRun:
    """The sequences of a run, and what was measured of them by any worker, in any order."""

    settings: Settings
    key: str  # digest of the run
    sequences: Sequence[Given]
    folder: Path | None = None  # where datasets are stored; None leaves them in memory
    on_progress: Callable[[ProfileProgress], None] | None = None
    # Names of the mixers in the order of their calls, and what is not measured and why, by sequence.
    _calls: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    _skipped: dict[int, dict[str, Note]] = field(default_factory=dict[int, dict[str, Note]])
    seconds: float = 0.0  # total seconds of measuring over all workers

    def __post_init__(self) -> None:
        self.parts = Parts(self.folder, ".unit", dataset_to_bytes, dataset_from_bytes)
        self.ends: Parts[Any] = Parts(self.folder, ".end", SequenceDone.to_bytes, SequenceDone.from_bytes)
        # The longest sequence decides how many heads or channels are measured.
        longest = max(map(len, self.sequences))
        self.tasks = [SequenceTask(at, given, self.key, longest) for at, given in enumerate(self.sequences)]

    def measure(self, executor: Executor) -> None:
        """Have all sequences measured but those that are stored, which are read; store each mixer, and tell of it."""
        for done in run(self._opened(), executor, self.ends, lambda task: task.part("")):
            task, step = done.task, done.get()
            mixers = [step]
            if isinstance(step, SequenceDone):
                self._skipped[task.sequence] = step.skipped
                stored = enumerate(step.mixers if done.resumed else ())
                mixers = [MixerDone(index, len(step.mixers), name, None) for index, name in stored]
            for mixer in mixers:
                self._add(task, mixer)

    def _add(self, task: SequenceTask, mixer: MixerDone) -> None:
        name, resumed = mixer.name, mixer.dataset is None
        dataset = self.read(name, task.sequence) if mixer.dataset is None else mixer.dataset
        if not resumed:
            self.parts.write(task.part(name), dataset)
            task.finished.add(task.part(name))
        self._calls.setdefault(task.sequence, []).append(name)
        self.seconds += dataset.attrs["seconds"]
        if self.on_progress is not None:
            place = task.sequence, len(self.tasks), mixer.index, mixer.mixers
            self.on_progress(ProfileProgress(*place, name, resumed))

    def _opened(self) -> Iterator[SequenceTask]:
        """Each task, with what is stored of it."""
        for task in self.tasks:
            if self.folder is not None:
                # Datasets are read one by one, so that no more than one is in memory.
                stored, end = self.parts.names(f"{task.sequence:06d}"), self.ends.read(task.part(""))
                task.finished.update(name for name in stored if self.parts.read(name) is not None)
                if end is not None and not task.finished.issuperset(map(task.part, end.mixers)):
                    self.ends.remove(task.part(""))
            yield task

    def read(self, mixer: str, sequence: int) -> xr.Dataset:
        """What was measured of a mixer over a sequence; a file that is gone or damaged is a FileError."""
        if (value := self.parts.read(self.tasks[sequence].part(mixer))) is None:
            raise FileError(
                f"{self.folder} was changed while it was in use: mixer {mixer} of sequence {sequence} is missing or "
                "damaged. Run the same command again; what is intact is used again."
            )
        return value

    def profile(self, tokenizer: AnyTokenizer | None, origin: Provenance, output: Path | None) -> Profile:
        """All datasets together; where they are written to a folder, the parts are removed."""
        sequences, joined, measured = self.sequences, dict[str, xr.Dataset](), dict[str, int]()
        for name in dict.fromkeys(name for _, names in sorted(self._calls.items()) for name in names):
            called = sorted(sequence for sequence, names in self._calls.items() if name in names)
            joined[name], left_out = joined_mixer(called, len(sequences), partial(self.read, name))
            measured[name] = len(called) - len(left_out)
            for sequence, note in left_out.items():
                self._skipped[sequence] = {**self._skipped.get(sequence, {}), name: note}
        skipped = self._reasons(measured)
        if not joined:
            raise NothingMeasuredError(skipped)
        root = token_dataset(sequences, tokenizer)
        settings = asdict(self.settings) | {"most_operations": MOST_OPERATIONS}
        root.attrs |= {
            **origin.attributes,
            "schema": SCHEMA,
            "mixers": [name for name in joined if not name.endswith(SHARED)],
            "versions": installed(*_PACKAGES),
            "tokens_sha256": tokens_sha256(sequences),
            "tolerances": list(self.settings.tolerances),
            "relative_tolerances": list(self.settings.ratios),
            # As JSON has them, so that a profile that was read equals the one that was saved.
            "settings": json.loads(json.dumps(settings, default=repr)),
            "skipped": {name: note.to_json() for name, note in skipped.items()},
            "seconds": round(self.seconds, 3),
        }
        children = {node_name(name): xr.DataTree(dataset) for name, dataset in joined.items()}
        profile = Profile(xr.DataTree(root, children=children))
        if output is not None and self.folder is not None:
            profile.save(output)
            shutil.rmtree(self.folder, ignore_errors=True)
        return profile

    def _reasons(self, measured: Mapping[str, int]) -> dict[str, Note]:
        """What is not measured, and why; of what is measured in some sequences, in how many."""
        skipped = {name: note for _, notes in sorted(self._skipped.items()) for name, note in notes.items()}
        for name, count in measured.items():
            if name in skipped and count == len(self.tasks):
                del skipped[name]
            elif name in skipped:
                some = f"{count} of {counted(len(self.tasks), 'sequence')}"
                skipped[name] = Note(Code.SOME_TEXTS, f"Measured in {some}; in the others: {skipped[name]}")
        return skipped


_PACKAGES = "torch", "numpy", "numba", "tokenizers", "transformers", "flash-linear-attention", "fla-core", "triton"


def earlier_profile(output: Path, key: str, sequences: Sequence[Given], name: str) -> Profile | None:
    """The profile in a folder, if it is of the same run; another model's is refused, another run is warned of."""
    # It is there where a run was killed while it tidied up, or is repeated.
    try:
        profile = Profile(read_tree(output))
    except FileError:
        return None
    attributes, texts = profile.tree.attrs, counted(profile.tokens.sizes["sequence"], "sequence")
    run = {"model": name, "run_sha256": key, "tokens_sha256": tokens_sha256(sequences)}
    if run.items() <= attributes.items():
        return profile
    held = f"{output}, which holds a profile of {attributes['model']} over {texts}"
    if attributes["model"] != name:
        raise FileError(f"output must be a new folder, or one of {name}, got {held}. Give another, or remove this one.")
    warn_caller(f"output is {held}. It is replaced when this one is complete; an interrupt keeps it.")
    return None


def profile_bar(bar: Bar, sequences: int) -> Callable[[ProfileProgress], None]:
    """What shows a profile in a bar; for its `on_progress`."""
    done = 0

    def update(progress: ProfileProgress) -> None:
        nonlocal done
        if progress.name.endswith(SHARED):
            return  # measured with its mixer, which counts
        # Counted, because several processes finish sequences in any order.
        done += 1
        bar.keep(progress.resumed)
        where = f"sequence {progress.sequence + 1} of {sequences}, mixer {progress.mixer + 1} of {progress.mixers}"
        bar.update(done, sequences * progress.mixers, f"{where} ({progress.name})")

    return update
