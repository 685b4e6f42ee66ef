"""A series: the same texts, positions and heads through all checkpoints of a training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.lab.trends.changes import Series
from statesize.lab.trends.checkpoints import Checkpoint, Log, find_checkpoints, find_log, read_log
from statesize.lab.trends.points import Point, measure_points, point_facts, point_key, point_notes
from statesize.measurement.settings import VARIANT, Settings
from statesize.models.hub import commit
from statesize.models.load import load_model, load_tokenizer
from statesize.parallel.threads import Crew, here
from statesize.texts.documents import vocabulary_size
from statesize.texts.inputs import Inputs, bundled_sequences, sequences, tokens_sha256
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
    on_progress: Callable[..., None] | None = None,
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
        log: A file of JSON objects with "step" and losses or accuracies, one per line, or a trainer_state.json; None
            takes what lies beside the checkpoints.
        output: Folder in which finished checkpoints are kept; the same call after a crash goes on from there.
        loading: What `load_model` takes beside name and revision: device, dtype and so on.
        crew: Who does the work: this process, or a `statesize.profiling.RayCluster`.
        on_progress: Called as (done, total, what, seconds left) after each checkpoint, instead of a bar.
        settings: What is measured of each layer, without a variant; None takes `statesize.Settings()`.

    Returns:
        The series.

    Raises:
        InputError: If there are fewer than two checkpoints, or no tokenizer for text.
        StatesizeError: If no checkpoint can be measured.

    Example:
        >>> measured = series(["sa", "la"], [[5, 6, 7, 8]], on_progress=lambda *_: None)
        >>> measured.names, str(measured.skipped["la"])
        (('sa',), 'Its layers, heads or channels are others than those of sa.')
    """
    tokenizer, settings = supported_tokenizer(tokenizer), (settings or Settings()).without("series", *VARIANT)
    known, options = find_checkpoints(checkpoints, revisions), dict(loading or {})
    if inputs is None or isinstance(inputs, str | Path):
        tokenizer = tokenizer or first_tokenizer(known, options)
    inputs = bundled_sequences(tokenizer, 4, 256) if inputs is None else inputs
    texts = tuple(sequences(inputs, tokenizer))
    settings.check_reach(max(map(len, texts)))
    work = CheckpointWork(texts, vocabulary_sha256(tokenizer), options, settings)
    points, skipped = measure_points(
        known, work, work.key, crew, title="measuring checkpoints", output=output, on_progress=on_progress
    )
    path, notes, read = Path(log) if log is not None else find_log(known), list[str](), Log()
    try:
        read = read if path is None else read_log(path)
    except StatesizeError as error:
        notes.append(str(error))
    steps = [checkpoint.step for checkpoint in points if checkpoint.step is not None]
    return Series(
        names=tuple(map(str, points)),
        # Where each has one of its own, and they ascend.
        places=tuple(steps) if len(steps) == len(points) and steps == sorted(set(steps)) else None,
        points=tuple(points.values()),
        skipped=skipped,
        log=read,
        tokens=tuple(map(len, texts)),
        facts=point_facts(texts, settings),
        notes=(*point_notes(points), *notes),
    )


@dataclass(frozen=True, eq=False)
class CheckpointWork:
    """Loads one checkpoint after another and measures it over the same texts."""

    texts: tuple[Tensor, ...]
    vocabulary: str | None
    loading: dict[str, Any]
    settings: Settings

    def __call__(self, checkpoint: Checkpoint) -> Iterator[Point]:
        """The point of a checkpoint."""
        loaded = load_model(checkpoint.model, revision=checkpoint.revision, needs_tokenizer=False, **self.loading)
        other = vocabulary_sha256(loaded.tokenizer)
        if self.vocabulary is not None and other is not None and other != self.vocabulary:
            raise ModelError("Its tokenizer has other tokens, so the same ids are another text to it.")
        size, largest = vocabulary_size(loaded.model), max(int(ids.max()) for ids in self.texts)
        if size is not None and largest >= size:
            raise ModelError(f"It has {size} tokens, and the texts hold the id {largest}.")
        point = Point.measured(loaded.model, self.texts, self.settings)
        # Its digest is from before it was loaded.
        if checkpoint.sha256 != replace(checkpoint).sha256:
            raise ModelError("Its files changed while it was measured. Measure it again.")
        yield point

    def key(self, checkpoint: Checkpoint) -> str:
        """The name of its point, with a digest of all that is known before it is loaded."""
        # The commit, where the hub's cache knows it.
        named = [checkpoint.model, checkpoint.revision, commit(checkpoint.model, checkpoint.revision or "main")]
        return point_key(
            checkpoint.name,
            model=checkpoint.sha256 or named,
            tokens=tokens_sha256(self.texts),
            loading=self.loading,
            asked=asdict(self.settings),
            threads=torch.get_num_threads(),
            versions=installed("torch", "numpy"),
        )


def vocabulary_sha256(tokenizer: AnyTokenizer | None) -> str | None:
    """A digest of what the ids of a tokenizer stand for; None where it does not say."""
    if not hasattr(tokenizer, "get_vocab"):
        return None
    vocabulary: dict[str, int] = cast("Any", tokenizer).get_vocab()
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


def first_tokenizer(checkpoints: Sequence[Checkpoint], loading: Mapping[str, Any]) -> AnyTokenizer:
    """The tokenizer of the first checkpoint that has one."""
    trusted = bool(loading.get("trust_remote_code"))
    for checkpoint in checkpoints:
        try:
            return load_tokenizer(checkpoint.model, revision=checkpoint.revision, trust_remote_code=trusted)
        except (FileError, ModelError):
            continue
    raise InputError(
        "No checkpoint has a tokenizer. Give token ids (--text IDS.json) or put a tokenizer.json beside them."
    )
