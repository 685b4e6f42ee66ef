"""Tables of runs that were never done: the design of a preset, with outcomes drawn from a seed."""

from __future__ import annotations

import json
import math
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

import experiments.rank  # noqa: F401
import experiments.variation  # noqa: F401
from experiments.crossover import ARMS
from statesize.lab.studies import study as studies
from statesize.lab.studies.delimiters import RECALL_CLAIM, add_recall
from statesize.lab.studies.engine.table import METRIC
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.engine.verdicts import Findings
from statesize.lab.studies.texts.dips import METRICS
from statesize.lab.studies.texts.documents import CONDITIONS, OBSERVED

OTHERS = ("entropy", "relative_0.001", "tolerance_0.001")


@cache
def design(study, preset):
    """Claim and runs of a preset, each run as the columns that tell it from others."""
    known = studies[study]()
    grid = known.preset(preset)
    return grid.claim or known.claim, [labels(run) for run in known.runs(grid)]


def labels(run):
    model, training = run.model, run.training
    columns = {
        **{"run": run.key, "status": "done", "message": "", "task": run.task.kind},
        **{"kv": run.task.items, "length": run.task.length, "chance": run.task.chance, "mixer": model.mixer},
        **{"key_size": model.key_size, "heads": model.heads, "width": model.width, "rate": training.rate},
        **{"seed": training.seed, "intervention": run.intervention, "state_size": float(model.key_size)},
        "settings": json.dumps(run.to_dict()),
    }
    sizes = () if run.distillation is None else run.distillation.key_sizes
    return MappingProxyType(columns), training.steps, model.layers, sizes


def normal(generator, keys, spread):
    """One normal number for each key that differs, as a function of the key."""
    values = {key: spread * generator.normal() for key in dict.fromkeys(keys)}
    return values.__getitem__


class Common(NamedTuple):
    """What runs share: those of a cell, of a seed, and, of ESS and of accuracy, of a beginning and of a placement."""

    cell: float
    seed: float
    begun: list[float]
    placed: list[float]  # of a pattern of layers, and of the place of its first attention


def cell(columns):
    return columns["task"], columns["kv"], columns["length"], columns["key_size"]


def beginning(columns):
    return columns["mixer"], columns["key_size"], columns["length"], columns["seed"]


def first_place(columns):
    return (*columns["mixer"].split(","), "sa").index("sa")


def table(study, preset, seed, effect=0.0, spread=0.0, shared=0.0):
    """Claim and rows of a design.

    `effect` is what the study looks for, `spread` the size of what cells and mixers share, and `shared` that of what
    runs share that begin with equal weights, where 1 is as much as all else that differs between seeds, and of what
    placements share that have their first attention in the same layer, where 1 is four times the variance of a run.
    """
    claim, runs = design(study, preset)
    generator = np.random.default_rng(seed)
    cells = normal(generator, (cell(columns) for columns, *_ in runs), spread)
    mixed = normal(generator, ((cell(columns), columns["mixer"]) for columns, *_ in runs), spread / 2)
    seeds = normal(generator, (columns["seed"] for columns, *_ in runs), spread)
    # What ESS and accuracy of runs share that begin with equal weights, a sixteenth of what seeds differ by (a
    # fourteenth was seen), and what those share with layers of equal order.
    begun = [normal(generator, (beginning(columns) for columns, *_ in runs), shared or spread / 4) for _ in range(2)]
    placed = [normal(generator, (columns["mixer"] for columns, *_ in runs), spread) for _ in range(2)]
    first = [normal(generator, (first_place(columns) for columns, *_ in runs), shared) for _ in range(2)]
    rows = []
    for columns, steps, layers, sizes in runs:
        common = Common(
            cells(cell(columns)) + mixed((cell(columns), columns["mixer"])),
            seeds(columns["seed"]),
            [value(beginning(columns)) for value in begun],
            [of(columns["mixer"]) + at(first_place(columns)) for of, at in zip(placed, first, strict=True)],
        )
        end = OUTCOMES[study](generator, columns, effect, common)
        rows += _rows(columns, steps, layers, end, generator)
        if sizes:
            rows += _students(rows[-1], sizes, layers, effect, common.begun[1] if shared else 0.0, generator)
    return claim, rows


def _rows(columns, steps, layers, end, generator):
    """A run's rows at its start, after a tenth of it, and at its end."""
    found = []
    for step, name in ((0, "first"), (steps // 10, "early"), (steps, "ess")):
        if step == 0 and found:
            continue
        ess = end.get(name, end["ess"])
        of = {METRIC: ess, f"utilisation_{METRIC}": ess / columns["state_size"], "norm": abs(generator.normal()) + 1}
        of |= {other: ess + 0.1 * generator.normal() for other in OTHERS}
        of |= end.get("more", {})
        of |= {layer_column(kind, layer): ess for kind in ("entropy", METRIC) for layer in range(layers)}
        accuracy = end["accuracy"] if step == steps else columns["chance"]
        found.append(dict(columns) | of | {"step": step, "final": step == steps, "accuracy": accuracy})
    return found


def _students(teacher, sizes, layers, effect, begun, generator):
    """A student a size, whose errors go with the teacher's ESS as much as `effect` says, and with its beginning."""
    kept = math.sqrt(1 - effect**2)
    for size in sizes:
        row = teacher | {"student_divergence": 0.1, "state_size": float(size)}
        drawn = generator.normal() + begun
        for layer in range(layers):
            error = 1 + 0.1 * (effect * (teacher[METRIC] - 8) + kept * drawn)
            row |= {f"student_error_layer_{layer}": error, f"student_size_layer_{layer}": float(size)}
            row[f"student_bound_layer_{layer}"] = 1.0
        yield row


def _correlation(generator, columns, effect, common):
    """Effect: the correlation of ESS and accuracy between seeds; kv and cells move both."""
    drawn, other = generator.normal(size=2)
    accuracy = effect * drawn + math.sqrt(1 - effect**2) * other
    scale = columns["kv"] / 100
    return {
        "ess": scale * (10 + drawn + common.begun[0] + 3 * common.cell),
        "first": scale * (10 + generator.normal() + 4 * common.begun[0] + common.cell),
        "accuracy": 0.5 + 0.05 * (accuracy + common.begun[1] + 3 * common.cell),
    }


def _regimes(generator, columns, effect, common):
    """Effect: how much more of its state linear attention uses."""
    more = effect if columns["mixer"] == "la" else 0.0
    share = 0.6 + more + 0.1 * common.cell + 0.05 * (generator.normal() + common.begun[0])
    return {"ess": columns["state_size"] * share, "accuracy": float(generator.random())}


def _regularisation(generator, columns, effect, common):
    """Effect: the gain in accuracy, which comes as runs that leave the plateau of guessing."""
    weight = json.loads(columns["settings"])["training"].get("identity_weight", 0.0)
    solved = generator.random() < 0.3 + (effect if weight else 0.0)
    return {"ess": 8.0, "accuracy": (0.9 if solved else 0.05) + 0.02 * common.seed + 0.03 * generator.normal()}


def _initialisation(generator, columns, effect, common):
    """Effect: the gain in accuracy; the ratio of the first ESS is 1 and 5 times as much."""
    factor = effect if json.loads(columns["settings"])["model"]["normalised"] else 0.0
    first = 8.0 * (1 + 5 * factor) * math.exp(0.05 * generator.normal())
    return {"ess": 8.0, "first": first, "accuracy": 0.25 + factor + 0.05 * (generator.normal() + common.seed)}


def _distillation(generator, columns, effect, common):
    return {
        "ess": 8 + generator.normal() + common.begun[0] + common.cell,
        "first": 8 + generator.normal(),
        "accuracy": generator.random(),
    }


def _hybrids(generator, columns, effect, common):
    """Effect: the correlation of early ESS with accuracy over placements and seeds."""
    drawn, other = generator.normal(size=2) + 2 * np.array(common.placed)
    accuracy = effect * drawn + math.sqrt(1 - effect**2) * other
    return {"ess": 8.0, "early": 8 + drawn + common.cell, "accuracy": 0.5 + 0.1 * (accuracy + common.seed)}


def _rank(generator, columns, effect, common):
    """Effect: the correlation of ESS and accuracy between seeds and over rules."""
    seed, rule = generator.normal(size=2), np.array(common.placed)
    accuracy = 0.5 + 0.1 * np.array([[effect, math.sqrt(1 - effect**2)]]) @ np.stack([seed, 3 * rule], 1)
    return {
        "ess": columns["kv"] * (10 + seed[0] + 3 * rule[0]),
        "first": columns["kv"] * (10 + generator.normal()),
        "accuracy": accuracy.sum(),
        "more": {name: columns["kv"] * (5 + generator.normal()) for name in ("state_rank", "stable_rank")},
    }


def _crossover(generator, columns, effect, common):
    """Effect: how many more runs solve the task by the remedy that fits; the others stay at guessing."""
    model = json.loads(columns["settings"])["model"]
    kind, remedy = next(arm for arm, fields in ARMS.items() if fields.items() <= model.items())
    gain = effect if remedy == {"saturated": "larger", "collapsed": "opened"}[kind] else 0.0
    solved = generator.random() < 0.2 + gain
    share = {"saturated": 0.9, "collapsed": 0.3}[kind]
    return {
        "ess": columns["state_size"] * share,
        "accuracy": (0.9 if solved else 0.15) + 0.03 * (generator.normal() + common.seed),
    }


def _variation(generator, columns, effect, common):
    """Effect: the gain of the operator that varies most."""
    gain = effect if columns["mixer"] == "gla" else 0.0
    return {"ess": columns["state_size"] / 2, "accuracy": 0.3 + gain + 0.05 * (generator.normal() + common.seed)}


OUTCOMES = {
    "rank": _rank,
    "crossover": _crossover,
    "variation": _variation,
    "correlation": _correlation,
    "regimes": _regimes,
    "regularisation": _regularisation,
    "initialisation": _initialisation,
    "distillation": _distillation,
    "hybrids": _hybrids,
}


def delimiters(generator, effect, spread):
    """Rows of models whose depth is `effect` more at delimiters than in their controls, which share a level."""
    for model in range(5):
        shared = 0.1 * spread * generator.normal()
        for condition in CONDITIONS:
            depth = shared + 0.05 * generator.normal() + (effect if condition == OBSERVED else 0.0)
            for metric in METRICS:
                told = {"model": str(model), "condition": condition, "metric": metric, "kind": "gla", "offset": 0}
                yield told | {"depth": depth, "low": depth - 0.02, "high": depth + 0.02, "reference": 2.0, "events": 60}


def recall(generator, effect, spread):
    """The recall of models of one mixer, which share a level; effect: the correlation of depth and recall."""
    shared, findings, rows = spread * generator.normal(), Findings(RECALL_CLAIM), []
    for _ in range(RECALL_CLAIM.least_units):
        depth, other = generator.normal(size=2)
        nats = 3 + shared - 0.3 * (effect * depth + math.sqrt(1 - effect**2) * other)
        rows.append({"kind": "gla", "depth": 0.3 + 0.1 * depth, "recall_perplexity": math.exp(nats)})
    add_recall(rows, findings)
    return RECALL_CLAIM, findings.conclusion("recall", ())


def conclude(study, preset, seed, effect=0.0, spread=0.0, shared=0.0):
    """Claim and conclusion of one simulated study."""
    if study == "recall":
        return recall(np.random.default_rng(seed), effect, spread)
    known = studies[study]()
    if study == "delimiters":
        claim, rows = known.claim, list(delimiters(np.random.default_rng(seed), effect, spread))
    else:
        claim, rows = table(study, preset, seed, effect, spread, shared)
    return claim, known.conclude(rows, claim)
