"""A series: the same texts, cuts and heads through all checkpoints of a training."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from statesize.check import refuse, several
from statesize.lab.trends.trend import AVERAGE, Trend, measured_rows
from statesize.measurement.settings import VARIANT, Settings
from statesize.measurement.statistics import mean_interval
from statesize.models.load import load_model, load_tokenizer
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import ProfileProgress
from statesize.profiling.run import run_profile
from statesize.texts.inputs import Inputs, bundled_sequences, sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer

# "step-000250" of statesize, "checkpoint-500" of a Trainer, "step1000" and "stage1-step1000-tokens5B" of the hub.
_STEP = re.compile(r"step[-_]?(\d+)|(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A model of a series: its name in tables, what `load_model` takes, and its step, where its name has one."""

    name: str
    model: str
    revision: str | None
    step: int | None


def series(
    checkpoints: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    inputs: Inputs | None = None,
    *,
    revisions: Sequence[str] = (),
    tokenizer: AnyTokenizer | None = None,
    output: str | os.PathLike[str] | None = None,
    loading: Mapping[str, Any] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
    settings: Settings | None = None,
) -> Trend:
    """Measure how the effective state-size (ESS) of each layer develops through the checkpoints of a training.

    A checkpoint that cannot be loaded or measured, and a layer that is not measured at all others, are left out and
    named. Where no checkpoint can be measured, the error of the first one is raised.

    Args:
        checkpoints: The folder of a training with checkpoints in it (`statesize lab train --keep-every`, a Trainer's
            output folder), several models, or one id of the hub with `revisions`.
        inputs: As for `statesize.profile`; all checkpoints read the same tokens.
        revisions: Branches, tags or commits of a model of the hub.
        tokenizer: As for `statesize.profile`; None takes that of the first checkpoint.
        output: Folder for the profile of each checkpoint; the same call after a crash goes on from there.
        loading: What `load_model` takes beside name and revision: device, dtype and so on.
        on_progress: As for `statesize.profile`.
        settings: What is measured of each layer, without a variant.

    Returns:
        The trend, with the change of each layer from the first checkpoint to the last. It is the mean over texts, with
        an interval of 95 % by Student's t over five texts or more.

    Example:
        >>> measured = series(["sa", "la"], [[5, 6, 7, 8]], on_progress=lambda *_: None)
        >>> measured.values("layers.0.mixer").shape
        (2, 1)
    """
    settings = (settings or Settings()).without("series", *VARIANT)
    settings = replace(settings, relative_tolerances=settings.ratios)
    found, tokenizer = find_checkpoints(checkpoints, revisions), supported_tokenizer(tokenizer)
    if tokenizer is None and (inputs is None or isinstance(inputs, str | Path)):
        tokenizer = load_tokenizer(found[0].model, revision=found[0].revision)[0]
    texts = bundled_sequences(tokenizer) if inputs is None else list(sequences(inputs, tokenizer))

    def measured(checkpoint: Checkpoint, folder: Path | None) -> Profile:
        loaded = load_model(checkpoint.model, revision=checkpoint.revision, needs_tokenizer=False, **(loading or {}))
        options: dict[str, Any] = {"tokenizer": tokenizer, "source": loaded.source, "on_progress": on_progress}
        return run_profile(loaded.model, texts, settings, output=folder, name=checkpoint.name, **options)

    points = {point: (point.name, at if point.step is None else point.step) for at, point in enumerate(found)}
    trend = Trend("step", *measured_rows(points, measured, range(len(texts)), output))
    ess = {layer: trend.values(layer) for layer in trend.layers}
    changes = {layer: mean_interval(each[-1] - each[0], trend.texts(layer)) for layer, each in ess.items()}
    names, means = trend.rows["point"].unique(), ess[AVERAGE].mean(1)
    told = f"ESS goes from {means[0]:.1f} at {names[0]} to {means[-1]:.1f} at {names[-1]}, by {changes[AVERAGE]:+.2f}."
    return replace(trend, analysis=changes, facts={"headline": told})


def find_checkpoints(
    arguments: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], revisions: Sequence[str] = ()
) -> list[Checkpoint]:
    """Checkpoints of folders, folders of checkpoints, names and ids, by their steps where they have some."""
    expected = "folders of models, or an id of the hub"
    given = [arguments] if isinstance(arguments, str | os.PathLike) else several("checkpoints", arguments, expected)
    models = list(dict.fromkeys(model for name in given for model in _expanded(str(name))))
    ends = [Path(model).name for model in models]
    found = [
        Checkpoint(revision or (end if ends.count(end) == 1 else model), model, revision, _step_of(revision or end))
        for model, end in zip(models, ends, strict=True)
        for revision in (revisions or [None])
    ]
    if len(found) < 2 or (revisions and len(models) > 1):
        advice = "Give the folder of a training that keeps some, several folders, or an id of the hub with revisions."
        refuse("checkpoints", "at least 2 different ones", models, advice)
    return sorted(found, key=lambda checkpoint: -1 if checkpoint.step is None else checkpoint.step)


def _expanded(name: str) -> list[str]:
    """The checkpoints that a name stands for; in the folder of a training, "best" and the like have no step."""
    folders = [config.parent for config in Path(name).glob("*/config.json")]
    return sorted(str(folder) for folder in folders if _step_of(folder.name) is not None) or [name]


def _step_of(name: str) -> int | None:
    found = _STEP.search(name)
    return None if found is None else int(found[1] or found[2])
