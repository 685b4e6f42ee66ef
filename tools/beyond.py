"""Does ESS add to what one would use otherwise? `python -m tools.beyond` repeats runs on record and measures that too.

Repeated runs must end with the accuracy of the record. `python -m tools.beyond --again` takes what was measured before.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from statesize.files import replace_file
from statesize.mixers import LanguageModel
from statesize.operators import Recurrence
from statesize.parallel.threads import one_torch_thread
from statesize.profiling.measuring import captured_mixers
from statesize.studies.grid.grid import Run
from statesize.studies.page.final import FinalRun, final_runs, numbered
from statesize.studies.page.statistics import Numbers, ranks, within_cells
from statesize.studies.record import read_record
from statesize.studies.verdicts.verdict import holm
from statesize.training.loop import train_in_memory
from statesize.training.step import evaluate

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FILE = RESULTS / "beyond.json"
METRIC = "relative_0.01"
REPEATED, ASKED = ("regularisation",), ("regularisation", "regimes", "correlation")
"""Studies whose runs are repeated, and those whose tables are asked."""

DRAWS = 9999


def measured(run: Run) -> dict[str, float]:
    """Train a model again and measure what is used in place of ESS, as means over layers, sequences, heads, positions.

    Args:
        run: A run of recurrences only.

    Returns:
        The accuracy; the perplexity of the rows of |T|; ‖S‖_F² / ‖S‖₂² of the states S; and the decay.
    """
    with one_torch_thread():
        model = LanguageModel(run.model, torch.Generator().manual_seed(run.training.seed))
        for _ in train_in_memory(model, run.task, run.training):
            pass
        with torch.no_grad():
            ids = next(iter(run.task.held_out(run.measuring.sequences)))[0]
            layers = [_of_layer(captured) for captured in captured_mixers(model, ids, None, "all")]
        accuracy = evaluate(model, run.task, run.training.batch_size)["accuracy"]
    return {"accuracy": accuracy} | {name: float(np.mean([layer[name] for layer in layers])) for name in layers[0]}


def _of_layer(captured: Any) -> dict[str, float]:
    operator, values = cast("Recurrence", captured.operator), captured.values()
    weights = operator.dense().double().abs()
    shares = weights / weights.sum(-1, keepdim=True)
    states = operator.states(values, range(1, values.shape[-2] + 1)).double()
    spectra = torch.linalg.svdvals(states)
    return {
        "attention_entropy": float(torch.special.entr(shares).sum(-1).exp().mean()),
        "stable_rank": float((spectra.square().sum(-1) / spectra[..., 0].square()).mean()),
        "mean_decay": float(operator.A.double().mean()),
    }


def partial(x: Numbers, y: Numbers, others: NDArray[np.float64]) -> float:
    """Correlate residuals of x (N,) and y (N,) on others (K, N), all of which are centred in their groups."""
    x, y = _residuals(np.stack([x, y]), others)
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def permuted_p(x: Numbers, y: Numbers, others: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Two-sided p of `partial`, from residuals of y that are permuted inside groups (Freedman and Lane 1983)."""
    order = np.argsort(groups, kind="stable")
    x, y, others, groups = x[order], y[order], others[:, order], groups[order]
    left = _residuals(y[None], others)[0]
    drawn = np.argsort(np.random.default_rng(0).random((DRAWS, len(x))) + groups, axis=1)
    again, ess = _residuals(left[drawn], others), _residuals(x[None], others)[0]
    found = np.abs(again @ ess) / np.sqrt((again**2).sum(1) * (ess @ ess))
    return float((1 + np.sum(found >= abs(partial(x, y, others)) - 1e-12)) / (1 + DRAWS))


def _residuals(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows - rows @ np.linalg.pinv(others) @ others


def compared(runs: Sequence[FinalRun], alternatives: dict[str, Numbers]) -> list[dict[str, Any]]:
    """Correlate ranks of ESS and of each alternative with accuracy among runs that differ in their seed only.

    Args:
        runs: The runs of a study.
        alternatives: Numbers (N,) by name.

    Returns:
        A row for each alternative and, if there are several, for all together.
    """
    alike = numbered([_without_seed(run) for run in runs])
    ess, accuracy = (
        within_cells(ranks(np.array(values)), alike)
        for values in ([float(run.last[METRIC]) for run in runs], [run.accuracy for run in runs])
    )
    known = {name: within_cells(ranks(values), alike) for name, values in alternatives.items()}
    sets = {name: values[None] for name, values in known.items()}
    if len(sets) > 1:
        sets["all of these"] = np.stack(list(known.values()))
    nothing = np.zeros((1, len(runs)))
    rows: list[dict[str, Any]] = []
    for name, others in sets.items():
        row: dict[str, Any] = {"alternative": name, "runs": len(runs), "groups": int(alike.max()) + 1}
        row |= {"ess": partial(ess, accuracy, nothing), "ess_given": partial(ess, accuracy, others)}
        row["p"] = permuted_p(ess, accuracy, others, alike)
        if len(others) == 1:
            row |= {
                "other": partial(others[0], accuracy, nothing),
                "other_given": partial(others[0], accuracy, ess[None]),
            }
        rows.append(row)
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["adjusted_p"] = p
    return rows


def _without_seed(run: FinalRun) -> str:
    training = {name: value for name, value in run.settings["training"].items() if name != "seed"}
    return json.dumps(run.settings | {"training": training}, sort_keys=True)


def analysed(repeated: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Ask every table on record.

    Args:
        repeated: What `measured` found by study and run.

    Returns:
        Rows of `compared`, each with its study.
    """
    rows: list[dict[str, Any]] = []
    for study in ASKED:
        runs = final_runs(read_record(RESULTS / study).rows)
        known = {
            "norm": [float(run.last["norm"]) for run in runs],
            "ESS at initialisation": [float(run.first[METRIC]) for run in runs],
        }
        again = [repeated[study][str(run.last["run"])] for run in runs] if study in repeated else []
        for name in ("attention_entropy", "stable_rank", "mean_decay") if again else ():
            known[name] = [one[name] for one in again]
        found = compared(runs, {name: np.array(values) for name, values in known.items()})
        rows += [{"study": study, **row} for row in found]
    return rows


def repeat(study: str) -> dict[str, dict[str, float]]:
    """Repeat the runs of a study on record.

    Args:
        study: Name of the study.

    Returns:
        What `measured` found, by run.

    Raises:
        ValueError: A run ends with another accuracy than that of the record.
    """
    found: dict[str, dict[str, float]] = {}
    for run in final_runs(read_record(RESULTS / study).rows):
        again = measured(Run.from_dict(run.settings))
        if again["accuracy"] != run.accuracy:
            raise ValueError(f"accuracy of {run.last['run']} must be {run.accuracy}, got {again['accuracy']}.")
        found[str(run.last["run"])] = again
        print(study, run.seed, again, flush=True)
    return found


if __name__ == "__main__":
    before = json.loads(FILE.read_text("utf-8"))["repeated"] if "--again" in sys.argv else None
    runs = before or {study: repeat(study) for study in REPEATED}
    document = {"command": "python -m tools.beyond", "metric": METRIC, "draws": DRAWS, "repeated": runs}
    replace_file(FILE, json.dumps(document | {"rows": analysed(runs)}, indent=1).encode() + b"\n")
