"""A study's settings in TOML: every value of a table may be a list, and the grid is the product of all lists."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from statesize.check import refuse, require_count, require_kind, require_path, require_real
from statesize.errors import FileError, InputError
from statesize.io.files import read_limited
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.studies.grid.grid import RunMeasurements, TrainingRun
from statesize.lab.studies.grid.students import Distillation
from statesize.lab.studies.verdicts import Claim
from statesize.lab.tasks.mixture import Mixture
from statesize.lab.tasks.registry import MIXTURE, build_task
from statesize.lab.training.config import TrainingConfig

PRESETS = ("laptop", "record", "paper", "smoke")

MOST_RUNS = 20_000
"""Runs of one grid: a few lists of a TOML file multiply to any number."""

_MODEL = frozenset(field.name for field in dataclasses.fields(ModelConfig)) - {"vocabulary_size"}
_TRAINING = frozenset(field.name for field in dataclasses.fields(TrainingConfig)) - {
    "evaluate_every",
    "checkpoint_every",
}
_TABLES = ("study", "claim", "intervention", "model", "training", "measuring", "execution", "task")


@dataclass(frozen=True)
class Execution:
    """Where runs are done; it changes nothing in the results.

    Attributes:
        workers: Processes on this machine; 0 takes one a core, and 1 works in the calling process.
        cpus: Cores of a run on Ray.
        gpus: GPUs of a run on Ray, as a share such as 0.25.
        memory: Bytes of a run on Ray.

    Raises:
        InputError: A number is out of range.
    """

    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 2**30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in {"workers", "memory"}:
                require_count(name, value, least=0, plain=True)
            else:
                require_real(name, value, least=0, plain=True)


@dataclass(frozen=True)
class GridSettings:
    """A study that is ready to be done.

    Attributes:
        study: Its name.
        runs: The grid.
        execution: Where it is done.
        claim: The claim that was fixed before the runs, or None.
    """

    study: str
    runs: tuple[TrainingRun, ...]
    execution: Execution
    claim: Claim | None = None


def preset_settings(study: str, preset: str) -> GridSettings:
    """Settings that come with the package.

    Args:
        study: Such as "correlation".
        preset: "laptop", "record", "paper" or "smoke".

    Returns:
        The settings.

    Raises:
        InputError: There is no such preset or study.
    """
    for name, value in (("study", study), ("preset", preset)):
        require_kind(name, value, str, "a name")
    if preset not in PRESETS:
        refuse("preset", f"one of {', '.join(PRESETS)}", preset)
    file = resources.files("statesize.lab.studies") / study / f"{preset}.toml"
    if not file.is_file():
        refuse("study and preset", "those of a grid that comes with the package", f"{study}, {preset}")
    return parse_settings(file.read_text(encoding="utf-8"), study)


def read_settings(path: Path, study: str) -> GridSettings:
    """Settings from a file.

    Args:
        path: A TOML file.
        study: The study that it must be for.

    Returns:
        The settings.

    Raises:
        FileError: The file cannot be read.
        InputError: It is no TOML, has a key that does not exist, or a value that does not fit.
    """
    path = require_path("path", path)
    try:
        text = read_limited(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"The settings {path} cannot be read: {error}.") from error
    try:
        return parse_settings(text, study)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_settings(text: str, study: str) -> GridSettings:
    r"""Settings from the text of a TOML file, which is read and never executed.

    The tables [model], [training] and [measuring] have the fields of `ModelConfig`, `TrainingConfig` and
    `RunMeasurements`; each [[task]] has `name` and the numbers of that task, and may have [task.model], [task.training]
    and `intervention`, which take the place of what is said outside. `intervention` is a name of `INTERVENTIONS`.
    [task.distillation] has the fields of `Distillation`; its lists belong to one run. So do [[task.parts]], the tasks
    of a mixture, and [[task.evaluation]], tasks that a run is evaluated on besides its own. [execution] has the fields
    of `Execution`, and [claim], where there is one, those of `Claim`.

    Args:
        text: TOML.
        study: The study that it must be for.

    Returns:
        The settings; equal runs of the grid are kept once.

    Raises:
        InputError: It is no TOML, is for another study, has a key that does not exist, a value that does not fit, or
            no run.

    Example:
        >>> grid = '[model]\nmixer = ["la", "gla"]\n[[task]]\nname = "mqar"\npairs = [4, 8]'
        >>> [run.label for run in parse_settings(grid, "correlation").runs][0]
        'mqar kv 4, la, n 32, rate 0.006, seed 0'
    """
    require_kind("text", text, str, "the text of a TOML file")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"The settings are no valid TOML: {error}.") from error
    _refuse_unknown(document, _TABLES, "The file of settings")
    if document.get("study", study) != study:
        raise InputError(f"The settings are for the study {document['study']!r}, and this is {study!r}.")
    tasks = document.get("task")
    if not isinstance(tasks, list) or not tasks:
        raise InputError('The settings have no task. Give one as [[task]] with name = "mqar" and its numbers.')
    model = _table(document, "model", _MODEL)
    training = _table(document, "training", _TRAINING)
    measuring = RunMeasurements(**_table(document, "measuring", RunMeasurements.__dataclass_fields__))
    execution = Execution(**_table(document, "execution", Execution.__dataclass_fields__))
    interventions = document.get("intervention", "none")
    runs: dict[str, TrainingRun] = {}
    for number, table in enumerate(cast("list[object]", tasks), start=1):
        if not isinstance(table, dict):
            refuse(f"task {number}", "a table", table, "Write it as [[task]].")
        for run in _runs(cast("dict[str, Any]", table), model, training, measuring, interventions):
            runs[run.key] = run
            if len(runs) > MOST_RUNS:
                raise InputError(f"The settings ask for more than {MOST_RUNS:,} runs. Give shorter lists.")
    if not runs:
        raise InputError("The grid is empty. Give each list at least one value.")
    return GridSettings(study, tuple(runs.values()), execution, _claim(document))


def _claim(document: dict[str, Any]) -> Claim | None:
    if "claim" not in document:
        return None
    values = _table(document, "claim", Claim.__dataclass_fields__)
    if missing := sorted(Claim.__dataclass_fields__.keys() - values.keys()):
        raise InputError(f"[claim] must have all of its keys, got none for {', '.join(missing)}. Add them.")
    return Claim(**values)


def _runs(
    task: dict[str, Any],
    model: dict[str, Any],
    training: dict[str, Any],
    measuring: RunMeasurements,
    interventions: Any,
) -> Iterator[TrainingRun]:
    own = {"model", "training", "intervention", "distillation", "evaluation", "parts"}
    numbers = {name: value for name, value in task.items() if name not in own}
    models = {**model, **_table(task, "model", _MODEL)}
    trainings = {**training, **_table(task, "training", _TRAINING)}
    students = None
    if "distillation" in task:
        students = Distillation(**_table(task, "distillation", Distillation.__dataclass_fields__))
    parts = {"parts": task["parts"]} if "parts" in task else {}
    others = None
    if "evaluation" in task:
        others = cast("Mixture", build_task({"name": MIXTURE, "parts": task["evaluation"]}))
    for built in (build_task(one | parts) for one in _product(numbers)):
        tokens = max(built.vocabulary_size, others.vocabulary_size if others else 0)
        for shape in _product(models):
            config = ModelConfig(vocabulary_size=tokens, **shape)
            for how in _product(trainings):
                for intervention in _as_list(task.get("intervention", interventions)):
                    yield TrainingRun(config, built, TrainingConfig(**how), measuring, intervention, students, others)


def _product(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    choices = [_as_list(value) for value in table.values()]
    for values in itertools.product(*choices):
        yield dict(zip(table, values, strict=True))


def _as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _table(document: Mapping[str, Any], name: str, fields: Any) -> dict[str, Any]:
    table: object = document.get(name, {})
    if not isinstance(table, dict):
        refuse(name, "a table", table, f"Write it as [{name}].")
    values = cast("dict[str, Any]", table)
    _refuse_unknown(values, fields, f"[{name}]")
    return values


def _refuse_unknown(values: Mapping[str, Any], known: Any, table: str) -> None:
    for name in values:
        if name not in known:
            keys = ", ".join(sorted(known))
            raise InputError(f"{table} has the key {name!r}, which does not exist. The keys are {keys}.")
