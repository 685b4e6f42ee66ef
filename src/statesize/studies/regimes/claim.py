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

from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion
from statesize.studies.page.final import FinalRun, final_runs, grid_findings, grouped, numbered
from statesize.studies.page.statistics import Interval, bootstrap, mean, within_cells

SOLVED = 0.95
"""Accuracy from which on a run counts as having solved its task."""

SATURATED, COLLAPSED = 0.8, 0.5
"""Utilisations from which on the state of an unsolved task is called saturated, and up to which collapsed."""

FULL, GATED = "la", ("gla", "wla")
"""The mixer that forgets nothing, and those that may."""

CAVEATS = (
    "The claim is the order of mixers at equal TSS, not that linear attention is always full: that is so for small "
    "states only; at n = 32 it solves the recall task with two fifths of its state.",
    "Gates that start open (a = 0.997, the intervention open_gates) avoid most of the collapse with no other change: "
    "where training starts matters as much as the mixer.",
    "Longer training without a change of the gates did not repair the collapse in these settings.",
    "ESS/TSS is a mean over all positions, and near both ends of a sequence no ESS can reach TSS. Utilisation is the "
    "mean over the cuts where the state is what limits ESS; diagnoses go by it.",
    "A diagnosis says how the state is used and whether the task is solved; that the one causes the other is shown by "
    "an intervention only.",
)


@dataclass(frozen=True)
class DiagnosedRun:
    """A run with what it does with its state at the end."""

    run: FinalRun
    share: float  # ESS/TSS
    utilisation: float  # ESS/TSS at the cuts where the state is what limits ESS
    diagnosis: str  # "solved", or the regime


def diagnosed_runs(rows: Sequence[Row], metric: str) -> list[DiagnosedRun]:
    """The runs that did not diverge, with their diagnoses by a column of ESS."""
    found: list[DiagnosedRun] = []
    for run in final_runs(rows):
        utilisation = float(run.last[f"utilisation_{metric}"])
        diagnosis = "solved" if run.accuracy >= SOLVED else _regime_of(utilisation)
        found.append(DiagnosedRun(run, run.share(metric), utilisation, diagnosis))
    return found


def _regime_of(utilisation: float) -> str:
    """What a run that has not solved its task does with its state."""
    if math.isnan(utilisation):
        return "too short to tell"
    return "saturated" if utilisation >= SATURATED else "collapsed" if utilisation <= COLLAPSED else "partly used"


def regimes(rows: Sequence[Row], metric: str) -> Conclusion:
    """What a grid says about saturation and collapse, by a column of ESS that was named before the runs were done."""
    runs, findings = diagnosed_runs(rows, metric), grid_findings(rows)
    untreated = [found for found in runs if found.run.intervention == "none"]
    lows: list[float] = []
    for gated in GATED:
        difference = _difference(untreated, gated)
        lows.append(difference.low)
        findings.add(f"share_{FULL}_less_{gated}", difference)
        findings.statements.append(f"ESS/TSS of {FULL} less that of {gated} at equal task, kv and TSS: {difference}.")
    for (name, words), members in grouped(runs, lambda found: _named(found.run)).items():
        share, utilisation = mean(found.share for found in members), mean(found.utilisation for found in members)
        accuracy = mean(found.run.accuracy for found in members)
        findings.figures |= {f"{name}_share": share, f"{name}_utilisation": utilisation, f"{name}_accuracy": accuracy}
        diagnoses = Counter(found.diagnosis for found in members)
        findings.statements.append(
            f"{words}: ESS/TSS {share:.2f}, utilisation {utilisation:.2f}, accuracy {accuracy:.2f}; "
            f"{', '.join(f'{count} {diagnosis}' for diagnosis, count in diagnoses.items())}."
        )
    findings.statements.append(
        f"Diagnoses: solved from accuracy {SOLVED} on; else saturated from utilisation {SATURATED} on, collapsed up to "
        f"{COLLAPSED}, partly used between."
    )
    holds = None if np.isnan(lows).all() else any(low > 0 for low in lows)
    claim = (
        f"At equal TSS, gla or wla use a smaller share of their state than la ({metric}/TSS; the interval of a "
        "difference lies above 0)."
    )
    return findings.conclusion("regimes", claim, holds, CAVEATS)


def _named(run: FinalRun) -> tuple[str, str]:
    """The name of a run's figures, and the same in words; seeds and rates share one."""
    name = f"{run.task}_{run.length}_kv{run.kv}_n{run.key_size}_{re.sub('[^a-z0-9]', '_', run.mixer)}"
    words = f"{run.task}, L {run.length}, kv {run.kv}, n {run.key_size}, {run.mixer}"
    if run.intervention == "none":
        return name, words
    # A control: nothing is different but the first values of some weights.
    return f"control_{name}_{run.intervention}", f"{words}, {run.intervention}"


def _difference(runs: list[DiagnosedRun], gated: str) -> Interval:
    """How much more of its state `FULL` uses than another mixer, by a regression with a constant for each cell."""
    both = [found for found in runs if found.run.mixer in {FULL, gated}]
    cells = numbered([found.run.cell for found in both])
    shares = np.array([found.share for found in both], np.float64)
    full = np.array([found.run.mixer == FULL for found in both], np.float64)

    def difference(chosen: NDArray[np.int64]) -> float:
        left, is_full = within_cells(shares[chosen], cells[chosen]), within_cells(full[chosen], cells[chosen])
        # No cell has both mixers where nothing is left.
        return float(left @ is_full / (is_full @ is_full)) if is_full.any() else math.nan

    return bootstrap(difference, np.arange(len(both)))
