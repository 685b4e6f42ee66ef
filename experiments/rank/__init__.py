"""Is it the rank of what is carried, or that of the state, that tells how much a model recalls?

State Rank Dynamics (arXiv 2602.02195) and LinearAttentionPruning (arXiv 2602.04852) prune linear attention by the rank
of its state S_t; ESS is that of H_i, what the past does to the future through S_t (Parnichkun et al. 2025, arXiv
2504.19561). Sixteen update rules are compared in one shell, at the border of context and questions. The effective rank
is that of Roy and Vetterli 2007, the stable rank ‖S‖_F² / ‖S‖₂².
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

import experiments.rank.mixers  # noqa: F401
from statesize import Recurrence, capture
from statesize.lab.mixers import LanguageModel
from statesize.lab.studies import Study, study
from statesize.lab.studies.engine.grid import SCHEDULE, SHAPE, Grid, RunMeasurements, TrainingRun, smoke, training_runs
from statesize.lab.studies.engine.statistics import (
    Evidence,
    Indices,
    Numbers,
    correlating,
    correlation_evidence,
    jackknife,
    mean,
    numbers,
    ranks_within,
    within_cells,
)
from statesize.lab.studies.engine.table import FinalRun, Row, StudyTable, grouped, numbered
from statesize.lab.studies.engine.training import measure_model, train_and_measure
from statesize.lab.studies.engine.verdicts import Claim, Findings
from statesize.lab.tasks import Rebinding
from statesize.lab.tasks.base import SyntheticTask
from statesize.metrics import entropy_ess

RULES: dict[str, dict[str, Any]] = {
    "la": {"mixer": "la"},
    "retnet": {"mixer": "retnet"},
    "wla": {"mixer": "wla"},
    "gla": {"mixer": "gla", "decay_bias": 0.0},
    "gla-scalar": {"mixer": "gla-scalar"},
    "gla-open": {"mixer": "gla", "decay_bias": 3.0},
    "gla-s6": {"mixer": "gla-s6"},
    "ssd": {"mixer": "ssd"},
    "hgrn": {"mixer": "hgrn"},
    "nla": {"mixer": "nla"},
    "deltanet": {"mixer": "deltanet"},
    "deltanet-2": {"mixer": "deltanet-2"},
    "gated-deltanet": {"mixer": "gated-deltanet", "smallest_step": 1e-3, "largest_step": 0.1},
    "gated-deltanet-open": {"mixer": "gated-deltanet", "smallest_step": 1e-4, "largest_step": 1e-2},
    "rwkv7": {"mixer": "rwkv7"},
    "gla-unit-keys": {"mixer": "gla-unit-keys"},
    "sa": {"mixer": "sa"},
}
"""The update rules as fields of a model; "sa" has no state, and is apart."""

SMOKE = smoke(
    [{"pairs": 4, "model": {"key_size": 4}}],
    variants=[RULES[rule] for rule in ["la", "gla-open", "hgrn", "nla", "deltanet-2", "rwkv7", "sa"]],
)

RECORD = Grid(
    variants=list(RULES.values()),
    claim=Claim(
        statement="Among runs that differ in their seed only, accuracy goes with entropy-ESS/kv at the border of "
        "context and questions by more than with the effective rank of the state there, and by more than with"
        " its stable rank.",
        unit="rule in a setting of task, kv and n",
        least_units=90,
        pilot="72 models of MQAR of another program (la, retnet, scalar gla, delta rule; n 4, 8, 16; 350 steps): "
        ".76 [.57, .88] with ESS/kv, −.14 [−.37, .19] with the effective rank, −.02 [−.39, .43] with the "
        "stable rank. Six runs of this one with seed 1 (la, gla, gla-open), which chose width, batch and "
        "vocabulary such that some learn and some do not",
        thresholds={"seeds_ess_less_state_rank": 0.0, "seeds_ess_less_stable_rank": 0.0},
    ),
    model=SHAPE | {"key_size": [8, 16], "width": 64, "decay_bias": 0.0, "tied": False},
    training=SCHEDULE | {"steps": 800, "batch_size": 8, "rate": 0.006, "seed": [9000, 9001, 9002, 9003]},
    measuring=RunMeasurements(every=800, sequences=32),
    tasks=[
        {"name": "mqar", "pairs": [8, 12], "length": 40, "vocabulary_size": 128},
        {"name": "rebinding", "documents": 2, "pairs": 6, "unbound": 3, "keys": 32},
    ],
)

# Five minutes of a core: four rules on one task, with new seeds; a verdict takes far more.
LAPTOP = dataclasses.replace(
    RECORD,
    variants=[RULES[rule] for rule in ["la", "gla", "gla-open", "deltanet"]],
    model=RECORD.model | {"key_size": 8},
    training=RECORD.training | {"seed": [9500, 9501, 9502, 9503]},
    tasks=RECORD.tasks[:1],
)

ACROSS = Claim(
    statement="Over update rules at equal n, those with the higher entropy-ESS/kv have the higher accuracy (rank "
    "correlation above 0), also given their ESS at initialisation.",
    unit="rule",
    least_units=16,
    pilot="no run: of four rules nothing can be told",
    thresholds={"rules_ess": 0.0, "rules_ess_given_start": 0.0},
)

MEASURES = {
    "ess": "entropy",
    "state_rank": "state_rank",
    "stable_rank": "stable_rank",
    "relative": "relative_0.01",
    "count": "tolerance_0.001",
    "norm": "norm",
}
"""What may tell accuracy, by the names of its figures: columns of a table, each divided by kv."""

GIVEN = ("ess", "stable_rank"), ("stable_rank", "ess"), ("ess", "norm")

CAVEATS = (
    "The rules share embedding, MLP, value width, short convolution and norm. The delta rules and that of RWKV-7 have "
    "silu and norms on queries and keys too, and the gated delta rules an output gate, as published: between rules, "
    "accuracy may go with these.",
    "ESS sees the questions that follow, and the rank of a state does not.",
    "Between rules, everything that differs between them moves accuracy.",
    "Small models, 800 steps, one learning rate, one machine.",
)


def border_of(task: SyntheticTask) -> int:
    """Tokens before the first question; of several documents, before that of the last one."""
    documents = task.length - task.document_length if isinstance(task, Rebinding) else 0
    return documents + 2 * task.items


@torch.no_grad()
def measure_border(model: LanguageModel, run: TrainingRun) -> dict[str, float]:
    """What is measured of any run, at the border, and the ranks of the states there; NaN for models without a state."""
    border = border_of(run.task)
    measured = measure_model(model, run, (border,))
    input_ids, _ = next(iter(run.task.held_out(run.task.held_out_sequences)))
    states = [
        captured.operator.states(captured.values(), [border])
        for captured in capture(model, input_ids)
        if isinstance(captured.operator, Recurrence) and captured.values is not None
    ]
    sigma: list[Tensor] = [torch.linalg.svdvals(state.double()) for state in states]
    return measured | {
        "state_rank": mean(entropy_ess(values).mean() for values in sigma),
        "stable_rank": mean((values.square().sum(-1) / values[..., 0].square()).mean() for values in sigma),
    }


def rule_of(run: FinalRun) -> str:
    """The update rule of a run."""
    model = run.settings["model"]
    return next(name for name, fields in RULES.items() if fields.items() <= model.items())


def _per_item(run: FinalRun, row: Row, name: str) -> float:
    return float(row[MEASURES[name]]) / run.kv


def _add_seeds(name: str, runs: Sequence[FinalRun], findings: Findings) -> None:
    """How accuracy goes with each measure among runs that differ in their seed only, and given another measure."""
    cells = numbered([run.settings_without("seed") for run in runs])
    columns = {measure: numbers(_per_item(run, run.last, measure) for run in runs) for measure in MEASURES}
    columns["accuracy"] = numbers(run.accuracy for run in runs)
    left = {column: within_cells(values, cells) for column, values in columns.items()}

    def lead(other: str) -> Evidence:
        of_ess, of_other = (correlating(left[measure], left["accuracy"]) for measure in ("ess", other))
        return jackknife(lambda rows: of_ess(rows) - of_other(rows), cells)

    for measure in MEASURES:
        findings.add(f"{name}_{measure}", correlation_evidence(left[measure], left["accuracy"], cells))
    for other in ("state_rank", "stable_rank") if name == "seeds" else ():
        findings.add(f"{name}_ess_less_{other}", lead(other))
    for one, other in GIVEN if name == "learned" else ():
        given = correlation_evidence(left[one], left["accuracy"], cells, left[other])
        findings.add(f"{name}_{one}_given_{other}", given)


def _add_rules(runs: Sequence[FinalRun], findings: Findings) -> None:
    """How accuracy goes with each measure over rules in a setting of task, kv and n, by ranks."""
    groups = grouped(runs, lambda run: (rule_of(run), run.cell))
    rules, settings = (numbered([key[part] for key in groups]) for part in (0, 1))

    def means(value: Callable[[FinalRun], float]) -> Numbers:
        return numbers(mean(map(value, members)) for members in groups.values())

    def inside(values: Numbers, rows: Indices) -> Numbers:
        return ranks_within(values[rows], settings[rows])

    accuracy = means(lambda run: run.accuracy)
    for name in MEASURES:
        last, start = (
            means(lambda run, at=at, name=name: _per_item(run, getattr(run, at), name)) for at in ("last", "first")
        )
        findings.add(f"rules_{name}", correlation_evidence(last, accuracy, rules, prepare=inside))
        findings.add(f"rules_{name}_given_start", correlation_evidence(last, accuracy, rules, start, inside))


@study("rank")
class Rank(Study):
    """The study of rank."""

    presets: ClassVar = {"smoke": SMOKE, "laptop": LAPTOP, "record": RECORD}
    caveats = CAVEATS

    def runs(self, grid: Grid) -> tuple[TrainingRun, ...]:
        """The runs of a grid, each with a seed of its own, counted on from the first."""
        runs = training_runs(grid)
        trainings = (dataclasses.replace(run.training, seed=runs[0].training.seed + k) for k, run in enumerate(runs))
        return tuple(dataclasses.replace(run, training=how) for run, how in zip(runs, trainings, strict=True))

    def carry_out(self, run: TrainingRun) -> list[Row]:
        """The rows of one run, measured at the border."""
        return train_and_measure(run, measure_border)

    def analyse(self, table: StudyTable, findings: Findings) -> None:
        """Which measure tells accuracy between seeds and between rules."""
        runs = [run for run in table.runs if run.mixer != "sa"]
        _add_seeds("seeds", runs, findings)
        _add_rules(runs, findings)
        # Asked after the runs.
        _add_seeds("learned", [run for run in runs if not run.guesses], findings)
        if findings.claim:
            across = Findings(ACROSS, evidence=findings.evidence).conclusion("rank", ())
            holds = math.nan if across.holds is None else float(across.holds)
            findings.figures |= {**across.figures, "across_holds": holds}
