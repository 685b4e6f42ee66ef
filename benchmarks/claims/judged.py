"""What benchmarks write of claims that were fixed before their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import document
from statesize.io.files import replace_file
from statesize.lab.studies.statistics import Evidence
from statesize.lab.studies.verdicts import Claim, judge
from statesize.measurement.statistics import Interval


def judged(claim: Claim, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """The claim, its verdict and the figures it rests on; and the other figures, which nothing was claimed of."""
    verdict = judge(claim, evidence)
    others = {name: one for name, one in evidence.items() if name not in claim.thresholds}
    return {
        "claim": vars(claim) | {"thresholds": dict(claim.thresholds)},
        "holds": verdict.holds,
        "reason": verdict.reason,
        "looks": [
            {"name": look.name, "threshold": look.threshold, "p": look.adjusted_p, **_told(look.interval, look.units)}
            for look in verdict.looks
        ],
        "others": {name: _told(one.interval(), one.units) for name, one in others.items()},
    }


def write_judged(rows: Sequence[Mapping[str, Any]], conclusion: Mapping[str, Any], path: Path) -> None:
    """Write the document of rows and what follows from them, and print the latter."""
    replace_file(path, (json.dumps(document(list(map(dict, rows)), **conclusion), indent=1) + "\n").encode())
    print(json.dumps({key: conclusion[key] for key in ("holds", "looks", "others")}, indent=1))


def _told(found: Interval, units: int) -> dict[str, Any]:
    """A value with its interval, None for what is not known."""
    value, *ends = (None if math.isnan(number) else number for number in (found.value, found.low, found.high))
    return {"value": value, "interval": ends, "units": units}
