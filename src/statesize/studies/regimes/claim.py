"""The study of regimes: which mixers fill their state, which leave it idle, and what that does to accuracy.

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 4.2.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statesize.results.diagnosis import COLLAPSED, SATURATED, regime_of
from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure
from statesize.studies.page.final import FinalRun, diverged, diverged_statement, final_runs, numbered
from statesize.studies.page.statistics import Interval, bootstrap, within_cells

SOLVED = 0.95
"""Accuracy from which on a run counts as having solved its task."""

FULL, GATED = "la", ("gla", "wla")
"""The mixer that forgets nothing, and those that may."""

CAVEATS = (
    "The claim is the order of mixers at equal TSS, not that linear attention is always full: that is so for small "
    "states only; at n = 32 it solves the recall task with two fifths of its state.",
    "Gates that start open (a = 0.997, the intervention open_gates) avoid most of the collapse with no other change: "
    "where training starts matters as much as the mixer.",
    "Longer training without a change of the gates did not repair the collapse in these settings.",
    "ESS/TSS is a mean over all positions, and near both ends of a sequence no ESS can reach TSS. Utilisation, ESS as "
    "a share of its ceiling, takes that into account; diagnoses go by it.",
    "A diagnosis says how the state is used and whether the task is solved; that the one causes the other is shown by "
    "an intervention only.",
)


@dataclass(frozen=True)
class DiagnosedRun:
    """A run with what it does with its state.

    Attributes:
        run: The run.
        share: ESS/TSS at the end.
        utilisation: ESS as a share of its ceiling, at the end.
        diagnosis: "solved", or the regime.
    """

    run: FinalRun
    share: float
    utilisation: float
    diagnosis: str


def diagnosed_runs(rows: Sequence[Row], metric: str) -> list[DiagnosedRun]:
    """The runs that did not diverge, with their diagnoses.

    Args:
        rows: All rows of the study.
        metric: Column of the ESS.

    Returns:
        One a run.
    """
    found: list[DiagnosedRun] = []
    for run in final_runs(rows):
        utilisation = float(run.last[f"utilisation_{metric}"])
        diagnosis = "solved" if run.accuracy >= SOLVED else regime_of(utilisation)
        found.append(DiagnosedRun(run, float(run.last[metric]) / run.state_size, utilisation, diagnosis))
    return found


def regimes(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about saturation and collapse.

    Args:
        rows: All rows of the study.
        metric: Column of the metric for which the claim is made, named before the runs were.

    Returns:
        The conclusion.
    """
    runs = diagnosed_runs(rows, metric)
    figures: dict[str, Figure] = {"diverged": float(diverged(rows))}
    statements: list[str] = []
    differences = {
        gated: _difference([found for found in runs if found.run.intervention == "none"], gated) for gated in GATED
    }
    for gated, difference in differences.items():
        figures[f"share_{FULL}_less_{gated}"] = difference.value
        figures[f"share_{FULL}_less_{gated}_interval"] = (difference.low, difference.high)
        statements.append(
            f"ESS/TSS of {FULL} less that of {gated} at equal task, kv and TSS: {difference.value:.2f} "
            f"[{difference.low:.2f}, {difference.high:.2f}]."
        )
    groups: dict[tuple[str, str], list[DiagnosedRun]] = {}
    for found in runs:
        groups.setdefault(_named(found.run), []).append(found)
    for (name, words), members in groups.items():
        means = {
            "share": float(np.mean([found.share for found in members])),
            "utilisation": float(np.mean([found.utilisation for found in members])),
            "accuracy": float(np.mean([found.run.accuracy for found in members])),
        }
        figures |= {f"{name}_{measure}": value for measure, value in means.items()}
        diagnoses = Counter(found.diagnosis for found in members)
        statements.append(
            f"{words}: ESS/TSS {means['share']:.2f}, utilisation {means['utilisation']:.2f}, accuracy "
            f"{means['accuracy']:.2f}; {', '.join(f'{count} {what}' for what, count in diagnoses.items())}."
        )
    statements.append(
        f"Diagnoses: solved from accuracy {SOLVED} on; else saturated from utilisation {SATURATED} on, collapsed up to "
        f"{COLLAPSED}, partly used between."
    )
    statements += diverged_statement(rows)
    lows = np.array([difference.low for difference in differences.values()])
    holds = None if np.isnan(lows).all() else bool((lows > 0).any())
    claim = (
        f"At equal TSS, gla or wla use a smaller share of their state than la ({metric}/TSS; the interval of a "
        "difference lies above 0)."
    )
    return Conclusion("regimes", claim, holds, figures, tuple(statements), CAVEATS)


def _named(run: FinalRun) -> tuple[str, str]:
    """The name of a run's figures, and the same in words; seeds and rates share one."""
    name = f"{run.task}_{run.length}_kv{run.kv}_n{run.key_size}_{re.sub('[^a-z0-9]', '_', run.mixer)}"
    words = f"{run.task}, L {run.length}, kv {run.kv}, n {run.key_size}, {run.mixer}"
    if run.intervention == "none":
        return name, words
    # A control: nothing is different but the first values of some weights.
    return f"control_{name}_{run.intervention}", f"{words}, {run.intervention}"


def _difference(runs: list[DiagnosedRun], gated: str) -> Interval:
    """What `FULL` uses more of its state than another mixer, by a regression with a constant for each cell."""
    both = [found for found in runs if found.run.mixer in {FULL, gated}]
    cells = numbered([found.run.cell for found in both])
    shares = np.array([found.share for found in both], np.float64)
    full = np.array([found.run.mixer == FULL for found in both], np.float64)

    def difference(chosen: NDArray[np.int64]) -> float:
        left, is_full = within_cells(shares[chosen], cells[chosen]), within_cells(full[chosen], cells[chosen])
        # No cell has both mixers where nothing is left.
        return float(left @ is_full / (is_full @ is_full)) if is_full.any() else math.nan

    return bootstrap(difference, np.arange(len(both)))
