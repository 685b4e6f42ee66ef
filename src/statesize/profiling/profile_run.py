"""From measured sequences to a profile: what every run does with its datasets, wherever they were measured."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from statesize.adapters.observation import SHARED
from statesize.adapters.select import NothingMeasuredError
from statesize.codes import Code, Note
from statesize.errors import FileError
from statesize.io.callers import warn_caller
from statesize.io.files import Parts, parts_writer
from statesize.io.kept import FOLDERS
from statesize.io.text import counted
from statesize.measurement.settings import Settings
from statesize.models.plugins import parts_folder
from statesize.parallel.threads import Executor, run
from statesize.profiling.profile import Profile
from statesize.profiling.sequences import MixerDone, Provenance, SequenceDone, SequenceTask
from statesize.profiling.work import MOST_OPERATIONS
from statesize.results.datasets import MixerRun, joined_mixer, token_dataset
from statesize.results.place import SCHEMA
from statesize.results.store import dataset_from_bytes, dataset_to_bytes, node_name, read_tree
from statesize.texts.inputs import Given, tokens_sha256
from statesize.texts.tokens import AnyTokenizer
from statesize.version import installed

if TYPE_CHECKING:
    from statesize.io.progress import Bars


@dataclass(frozen=True)
class ProfileProgress:
    """How far a profile is, after each mixer of each sequence.

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
class ProfileRun:
    """The sequences of a run, and what was measured of them by any worker, in any order."""

    settings: Settings
    key: str  # digest of the run
    count: int | None  # number of sequences, or None where the inputs do not say
    folder: Path | None  # where datasets are stored; None leaves them in memory
    on_progress: Callable[[ProfileProgress], None] | None
    # Tokens of the sequence that decides how many heads or channels are measured; None takes the first.
    reference: int | None
    tasks: list[SequenceTask] = field(default_factory=list[SequenceTask])  # one for each sequence
    mixers: dict[str, MixerRun] = field(default_factory=dict[str, MixerRun])  # what is known of each mixer
    # Names of the mixers in the order of their calls, by sequence.
    _calls: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    # What is not measured, and why, by sequence.
    _skipped: dict[int, dict[str, Note]] = field(default_factory=dict[int, dict[str, Note]])
    seconds: float = 0.0  # total seconds of measuring over all workers

    def __post_init__(self) -> None:
        self.parts = Parts(self.folder, ".unit", dataset_to_bytes, dataset_from_bytes)
        self.ends: Parts[Any] = Parts(self.folder, ".end", SequenceDone.to_bytes, SequenceDone.from_bytes)

    def measure(self, inputs: Iterable[Given], executor: Executor) -> None:
        """Have all sequences measured but those that are stored, which are read; store each mixer, and tell of it."""
        for done in run(self._tasks(inputs), executor, self.ends, lambda task: task.part("")):
            task, step = done.task, done.get()
            sequence, steps = task.sequence, [step]
            if isinstance(step, SequenceDone):
                self._skipped[sequence] = step.skipped
                stored = enumerate(step.mixers if done.resumed else ())
                steps = [MixerDone(index, len(step.mixers), name, None) for index, name in stored]
            for mixer in steps:
                name, dataset, resumed = mixer.name, mixer.dataset, mixer.dataset is None
                if dataset is None:
                    dataset = self.read(name, sequence)
                else:
                    self.parts.write(task.part(name), dataset)
                    task.finished.add(task.part(name))
                self._calls.setdefault(sequence, []).append(name)
                self.mixers.setdefault(name, MixerRun(name, dataset.attrs)).add(sequence, dataset)
                seconds, engine = dataset.attrs["seconds"], dataset.attrs["engine"]
                self.seconds += seconds
                if self.on_progress is not None:
                    took = 0.0 if resumed else seconds
                    told = ProfileProgress(sequence, self.count, mixer.index, mixer.mixers, name, engine, took, resumed)
                    self.on_progress(told)

    def _tasks(self, inputs: Iterable[Given]) -> Iterator[SequenceTask]:
        for sequence, given in enumerate(inputs):
            self.reference = self.reference or len(given)
            self.tasks.append(task := SequenceTask(sequence, given, self.key, self.reference))
            if self.folder is not None:
                # Datasets are read one by one, so that no more than one is in memory.
                stored, end = self.parts.names(f"{sequence:06d}"), self.ends.read(task.part(""))
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

    def profile(
        self,
        tokenizer: AnyTokenizer | None,
        origin: Provenance,
        output: Path | None,
    ) -> Profile:
        """All datasets together; where they are written to a folder, the parts are removed."""
        sequences = [task.given for task in self.tasks]
        for name, mixer in self.mixers.items():
            # The first sequence decides, whichever worker has finished first.
            if len(set(mixer.forms.values())) == 1:
                continue
            for sequence, reason in mixer.leave_out_other_forms().items():
                self._skipped[sequence] = {**self._skipped.get(sequence, {}), name: reason}
        skipped = self._reasons() if any(self._skipped.values()) else {}
        if not self.mixers:
            raise NothingMeasuredError(skipped)
        order = list[str]()
        for _, names in sorted(self._calls.items()):
            place = 0
            for name in names:
                if name not in order:
                    # Behind the one that is called before it.
                    order.insert(place, name)
                place = order.index(name) + 1
        self.mixers = {name: self.mixers[name] for name in order}
        root = token_dataset(sequences, tokenizer)
        settings = asdict(self.settings) | {"most_operations": MOST_OPERATIONS}
        root.attrs |= {
            "model": origin.model,
            "weights_sha256": origin.weights,
            "run_sha256": origin.key,
            "source": origin.source,
            "threads": origin.threads,
            "kernels": dict(origin.kernels),
            "schema": SCHEMA,
            "mixers": [name for name in self.mixers if not name.endswith(SHARED)],
            "versions": installed(*_PACKAGES, *(_FLA if "fla" in sys.modules else ())),
            "tokens_sha256": tokens_sha256(sequences),
            "tolerances": list(self.settings.tolerances),
            "relative_tolerances": list(self.settings.ratios),
            # As JSON has them, so that a profile that was read equals the one that was saved.
            "settings": json.loads(json.dumps(settings, default=repr)),
            "skipped": {name: note.to_json() for name, note in skipped.items()},
            "seconds": round(self.seconds, 3),
        }
        joined = {name: joined_mixer(mixer, len(sequences), self.read) for name, mixer in self.mixers.items()}
        children = {node_name(name): xr.DataTree(mixer) for name, mixer in joined.items()}
        profile = Profile(xr.DataTree(root, children=children))
        if output is not None and self.folder is not None:
            profile.save(output)
            shutil.rmtree(self.folder, ignore_errors=True)
        return profile

    def _reasons(self) -> dict[str, Note]:
        """What is not measured, and why; of what is measured in some sequences, in how many."""
        skipped = {name: why for _, causes in sorted(self._skipped.items()) for name, why in causes.items()}
        for name in self.mixers.keys() & skipped.keys():
            measured, all_of_them = len(self.mixers[name].sequences), len(self.tasks)
            of = f"{measured} of {counted(all_of_them, 'sequence')}"
            skipped[name] = Note(Code.SOME_TEXTS, f"Measured in {of}; in the others: {skipped[name]}")
            if measured == all_of_them:
                del skipped[name]
        return skipped


_PACKAGES = ("torch", "numpy", "numba", "tokenizers", "transformers")
_FLA = ("flash-linear-attention", "fla-core", "triton")


@contextmanager
def units_folder(output: Path) -> Generator[Path]:
    """The folder of finished parts of the profile that is written to `output`, locked against other processes."""
    folder = parts_folder(output)
    with parts_writer(folder, r"\d{6,}"):
        yield folder
    FOLDERS[output] = "the same command"


def earlier_profile(output: Path, key: str, sequences: Sequence[Given], name: str) -> Profile | None:
    """The profile in a folder, if it is of the same run; another model's is refused, another run is warned of."""
    # It is there where a run was killed while it tidied up, or is repeated.
    try:
        profile = Profile(read_tree(output))
    except FileError:
        return None
    attributes, lengths = profile.tree.attrs, profile.tokens["length"].values
    run = {"model": name, "run_sha256": key, "tokens_sha256": tokens_sha256(sequences)}
    if run.items() <= attributes.items():
        return profile
    read = f"{counted(len(lengths), 'sequence')}, {counted(int(lengths.sum()), 'position')}"
    if attributes["model"] != name:
        raise FileError(
            f"output must be a new folder, or one of a profile of {name}, got {output}, which holds one of "
            f"{attributes['model']} over {read}. Give another folder, or remove this one."
        )
    warn_caller(
        f"{output} holds another profile: of {attributes['model']} over {read}, measured in "
        f"{attributes['seconds']:.0f} s. It is replaced when this one is complete; an interrupt keeps it.",
    )
    return None


def profile_bar(bars: Bars, name: str, sequences: int | None) -> Callable[[ProfileProgress], None]:
    """Begin the bar of a profile; for its `on_progress`."""
    bar = bars.begin(f"profiling {name}")
    before = done = 0

    def update(progress: ProfileProgress) -> None:
        nonlocal before, done
        if progress.name.endswith(SHARED):
            return  # measured with its mixer, which counts
        # Counted, because several processes finish sequences in any order.
        done += 1
        before += progress.resumed
        bar.keep(progress.resumed)
        if before and not progress.resumed:
            bar.note(f"{counted(before, 'measurement')} of layers kept from an earlier run")
            before = 0
        # Inputs that are read while they are measured do not say how many they are.
        total = sequences or progress.sequence + 1
        of = "" if sequences is None else f" of {sequences}"
        where = f"sequence {progress.sequence + 1}{of}, mixer {progress.mixer + 1} of {progress.mixers}"
        bar.update(done, total * progress.mixers, f"{where} ({progress.name})")

    return update
