"""A series: the same documents, positions and heads through all checkpoints of a training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.io.files import digest
from statesize.io.progress import Bars
from statesize.lab.trends.checkpoints import Checkpoint, Log, content_sha256, find_checkpoints, find_log, read_log
from statesize.lab.trends.result import Series
from statesize.lab.trends.sweep import SweepProgress, sweep
from statesize.lab.trends.trend import SweepPoint, alike, point_of
from statesize.measurement.settings import Settings
from statesize.models.digests import tokens_sha256
from statesize.models.from_transformers import commit
from statesize.models.load import load_model, load_tokenizer
from statesize.parallel.executor import Crew, given, here
from statesize.profiling.run import run_profile
from statesize.texts.documents import vocabulary_size
from statesize.texts.inputs import Inputs, bundled_sequences, sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer
from statesize.version import installed


def series(
    checkpoints: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    inputs: Inputs | None = None,
    *,
    revisions: Sequence[str] = (),
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    log: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    loading: Mapping[str, Any] | None = None,
    crew: Crew = here,
    on_progress: Callable[[SweepProgress], None] | None = None,
    settings: Settings | None = None,
) -> Series:
    """Measure how the effective state-size (ESS) of each layer develops through the checkpoints of a training.

    All checkpoints read the same tokens and are measured at the same positions, heads and channels. A checkpoint that
    cannot be loaded or measured, or that has other layers, units or tokens than the first one, is left out and named;
    the others are measured.

    Args:
        checkpoints: The folder of a training with checkpoints in it (`statesize train --keep-every`, a Trainer's output
            folder), folders of models, patterns such as `run/checkpoint-*`, or one id of the hub with `revisions`.
        inputs: As for `statesize.profile`; None takes bundled documents.
        revisions: Branches, tags or commits of a model of the hub.
        tokenizer: As for `statesize.profile`; None takes that of the first checkpoint that has one.
        log: A file of JSON objects with "step" and losses or accuracies, one a line, or a trainer_state.json; None
            takes what lies beside the checkpoints.
        output: Folder in which finished checkpoints are kept; the same call after a crash goes on from there.
        loading: What `load_model` takes beside name and revision: device, dtype and so on.
        crew: Gives what runs the work, such as `ray_workers`.
        on_progress: Called after each checkpoint, instead of a bar.
        settings: What is measured of each layer; None takes `statesize.Settings()`.

    Returns:
        The series.

    Raises:
        InputError: If there are fewer than two checkpoints, or no tokenizer for text.
        StatesizeError: If no checkpoint can be measured.

    Example:
        >>> measured = series(["sa", "la"], [[5, 6, 7, 8]], on_progress=lambda progress: None)
        >>> measured.names, measured.skipped
        (('sa',), {'la': 'Its layers, heads or channels are others than those of sa.'})
    """
    tokenizer = supported_tokenizer(tokenizer)
    known, options = find_checkpoints(checkpoints, revisions), dict(loading or {})
    if inputs is None or isinstance(inputs, str | Path):
        tokenizer = tokenizer or first_tokenizer(known, options)
    ids = tuple(sequences(bundled_sequences(cast("Any", tokenizer)) if inputs is None else inputs, tokenizer)[0])
    settings = settings or Settings()
    work = CheckpointWork(ids, vocabulary_sha256(tokenizer), options, settings)
    with Bars(on_progress is not None, lines=False) as bars:
        measured, skipped = sweep(
            known, partial(given, work), crew, title=lambda one: one.name, key=work.key,
            folder=None if output is None else Path(output),
            on_progress=on_progress or trend_bar(bars, "measuring checkpoints", len(known)),
        )  # fmt: skip
    points, others = alike({one.name: point for one, point in measured.items()})
    measured = {one: points[one.name] for one in measured if one.name in points}
    path, notes, read = Path(log) if log is not None else find_log(known), list[str](), Log()
    try:
        read = read if path is None else read_log(path)
    except StatesizeError as error:
        notes.append(str(error))
    return Series(
        names=tuple(checkpoint.name for checkpoint in measured),
        steps=_steps(measured),
        points=tuple(measured.values()),
        skipped=skipped | others,
        log=read,
        lengths=tuple(map(len, ids)),
        facts=trend_facts(ids, settings),
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class CheckpointWork:
    """Loads one checkpoint after another and measures it over the same sequences."""

    sequences: tuple[Tensor, ...]
    vocabulary: str | None
    loading: dict[str, Any]
    settings: Settings

    def __call__(self, checkpoint: Checkpoint) -> Iterator[SweepPoint]:
        """The point of a checkpoint."""
        loaded = load_model(checkpoint.model, revision=checkpoint.revision, needs_tokenizer=False, **self.loading)
        other = vocabulary_sha256(loaded.tokenizer)
        if self.vocabulary is not None and other is not None and other != self.vocabulary:
            raise ModelError("Its tokenizer has other tokens, so the same ids are another text to it.")
        size, largest = vocabulary_size(loaded.model), max(int(ids.max()) for ids in self.sequences)
        if size is not None and largest >= size:
            raise ModelError(f"It has {size} tokens, and the texts hold the id {largest}.")
        texts = list(self.sequences)
        yield measured_point(loaded.model, texts, self.settings)

    def key(self, checkpoint: Checkpoint) -> str:
        """A digest of all that a checkpoint's numbers depend on, as far as it is known before it is loaded."""
        # The commit, where the hub's cache knows it.
        known = commit(checkpoint.model, checkpoint.revision or "main") if checkpoint.revision else None
        named = [checkpoint.model, checkpoint.revision, known]
        facts = {
            "model": content_sha256(checkpoint.folder) if checkpoint.folder else named,
            "tokens": tokens_sha256(self.sequences),
            "loading": self.loading,
            "asked": asdict(self.settings),
            "threads": torch.get_num_threads(),
            "versions": installed("torch", "numpy"),
        }
        name = "".join(sign if sign.isalnum() or sign in "-." else "_" for sign in checkpoint.name)[-60:]
        return f"{name}-{digest(json.dumps(facts, sort_keys=True, default=repr).encode())}"


def vocabulary_sha256(tokenizer: AnyTokenizer | None) -> str | None:
    """A digest of what the ids of a tokenizer stand for; None where it does not say."""
    if not hasattr(tokenizer, "get_vocab"):
        return None
    vocabulary: dict[str, int] = cast("Any", tokenizer).get_vocab()
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


def trend_facts(sequences: Sequence[Tensor], settings: Settings) -> dict[str, Any]:
    """What a result keeps of how it was made."""
    return {
        "tokens_sha256": tokens_sha256(sequences),
        "asked": json.loads(json.dumps(asdict(settings), default=str)),
        "versions": installed("torch", "numpy"),
    }


def trend_bar(bars: Bars, title: str, total: int) -> Callable[[SweepProgress], None]:
    """Begin the bar of a trend."""
    bar = bars.begin(title, total)

    def update(progress: SweepProgress) -> None:
        bar.keep(progress.resumed)
        if progress.error:
            bar.note(f"{progress.name} left out: {progress.error}")
        bar.update(progress.done, progress.total, f"{progress.name}, {progress.done} of {progress.total}")

    return update


def first_tokenizer(checkpoints: Sequence[Checkpoint], loading: Mapping[str, Any]) -> AnyTokenizer:
    """The tokenizer of the first checkpoint that has one."""
    trusted = bool(loading.get("trust_remote_code"))
    for checkpoint in checkpoints:
        try:
            return load_tokenizer(checkpoint.model, revision=checkpoint.revision, trust_remote_code=trusted)
        except (FileError, ModelError):
            continue
    raise InputError("No checkpoint has a tokenizer. Give token ids, or put a tokenizer.json beside the checkpoints.")


def _steps(checkpoints: Iterable[Checkpoint]) -> tuple[int, ...] | None:
    """Their steps, where each has one of its own and they ascend."""
    steps = [checkpoint.step for checkpoint in checkpoints]
    known = [step for step in steps if step is not None]
    return tuple(known) if known == steps == sorted(set(known)) else None


def measured_point(model: nn.Module, texts: list[Tensor], settings: Settings) -> SweepPoint:
    """The point of a model, at one tolerance unless several are requested, because it holds the first alone."""
    settings = replace(settings, relative_tolerances=settings.ratios)
    # Without the warning of `profile`: what is skipped stands in the point.
    return point_of(run_profile(model, texts, settings, on_progress=silent))


def silent(progress: object) -> None:
    """No bar of its own."""
