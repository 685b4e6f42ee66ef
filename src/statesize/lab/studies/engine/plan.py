"""What the runs of a study take: a few of those that train one mixer on one task are begun, and their steps timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from statesize.io.steps import Plan, PlannedStep, evenly_spread
from statesize.io.text import counted
from statesize.lab.studies.engine.grid import TrainingRun
from statesize.lab.studies.engine.study import Grid, Study
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.training import on_its_own, untrained_model
from statesize.lab.training.loop import train_in_memory

CarryOut = Callable[[Any], list[Row]]

# Runs of a kind that are timed, evenly spread, as tasks and models of a kind differ in size; and steps of each.
_RUNS, _STEPS = 3, 6


def study_plan(study: Study, grid: Grid, on_progress: Callable[[int, int, str], object] | None = None) -> Plan[Any]:
    """Predict what `run_study` takes in this process, one run after another.

    A run that trains is begun: its first steps and its first measurement are timed, and those of its first student. A
    run that reads texts is done, as all of its work is one measurement.

    Args:
        study: The study.
        grid: Its grid, such as `study.preset("record")`.
        on_progress: Called with how many runs were timed, how many will be, and the kind of the next.

    Returns:
        The plan, with a step for each kind of runs.

    Example:
        >>> from statesize.lab.studies.catalogue import load_study
        >>> study = load_study("regimes")
        >>> len(study_plan(study, study.preset("smoke")).steps) > 0
        True
    """
    kinds = defaultdict[str, list[Any]](list)
    for run in grid.runs:
        kinds[run.kind].append(run)
    timed = {
        kind: [runs[at] for at in evenly_spread(_RUNS if isinstance(runs[0], TrainingRun) else 1, len(runs))]
        for kind, runs in kinds.items()
    }
    total, done, steps = sum(map(len, timed.values())), 0, list[PlannedStep]()
    for kind, some in timed.items():
        seconds = list[float]()
        for run in some:
            if on_progress is not None:
                on_progress(done, total, kind)
            seconds.append(_seconds(run, study.carry_out))
            done += 1
        steps.append(PlannedStep(kind, len(kinds[kind]), len(kinds[kind]) * fmean(seconds)))
    tried = f"The beginning of {total} was timed for this plan, and is not kept."
    work = f"{counted(len(grid.runs), 'run')}, one after another in this process. {tried}"
    return Plan(tuple(steps), sum(step.seconds for step in steps), work)


def _seconds(run: Any, carry_out: CarryOut) -> float:
    """What one run takes."""
    if not isinstance(run, TrainingRun):
        return _took(run, carry_out)
    untrained = replace(run, training=replace(run.training, steps=0), distillation=None)
    # What runs first loads what the next ones use.
    carry_out(untrained)
    measured = _took(untrained, carry_out)
    seconds = measured * (1 + -(-run.training.steps // run.measuring.every)) + run.training.steps * _step(run)
    if run.distillation is None:
        return seconds
    sizes, few = run.distillation.key_sizes, replace(run.distillation, steps=_STEPS)
    student = replace(untrained, distillation=replace(few, key_sizes=sizes[:1]))
    own = max(0.0, _took(student, carry_out) - 2 * measured) / _STEPS
    return seconds + len(sizes) * (measured + run.distillation.steps * own)


def _took(run: Any, carry_out: CarryOut) -> float:
    start = time.perf_counter()
    carry_out(run)
    return time.perf_counter() - start


def _step(run: TrainingRun) -> float:
    """Seconds of one step of training, the first left out."""
    with on_its_own(run):
        steps = train_in_memory(untrained_model(run), run.task, replace(run.training, steps=_STEPS))
        ends = [time.perf_counter() for _ in steps]
    return median(after - before for before, after in pairwise(ends))
