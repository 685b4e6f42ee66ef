"""What the claims of before give on the runs on record: python -m tools.history, which needs the history of git."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from statesize.io.files import replace_file
from statesize.lab.studies.record import RECORD, TABLE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FILE = RESULTS / "history.json"
PILOT = "pilot.parquet"
"""The runs of hybrids with cells for units."""
COMMIT = "59d7e0526fcd799fbf5ec1b57b76755ec374a9e1"
"""The last commit with those claims; the next one gave all studies one set of rules."""

FIGURES = {
    "correlation": ("mqar_pearson_difference", "mqar_inside_cells"),
    "regimes": ("share_la_less_gla", "share_la_less_wla"),
    "regularisation": ("gla_lambda_0.3_gain",),
    "initialisation": ("s6_accuracy_gain_0.01_to_0.1",),
    "distillation": ("n4_spearman",),
    "hybrids": ("early_spearman", "early_spearman_inside"),
}
"""Figures of each claim of before."""

# Runs with the code of that commit.
_ASKED = """
import json, sys
from pathlib import Path
from statesize.lab.studies.catalogue import GRID_STUDIES
from statesize.lab.studies.grid.table import parse_rows
found = GRID_STUDIES[sys.argv[1]].conclude(parse_rows(Path(sys.argv[2]).read_bytes()), "relative_0.01")
print(json.dumps({"claim": found.claim, "holds": found.holds, "figures": found.figures}))
"""


def history() -> dict[str, Any]:
    """Judge the tables on record by the claims of before.

    Returns:
        What docs/results/history.json holds: claim, verdict and figures of each study, and the table's digest; and
        figures of the pilot of hybrids by the analysis of before.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = ["git", "archive", COMMIT, "src"]
        archive = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            content.extractall(folder, filter="data")
        for study in (name for name in FIGURES if (RESULTS / name / RECORD).exists()):
            digest = json.loads((RESULTS / study / RECORD).read_text("utf-8"))["table_sha256"]
            found[study] = _said(study, TABLE, FIGURES[study], folder) | {"table_sha256": digest}
        pilot = _said("hybrids", PILOT, ("early_attention_spearman_inside",), folder)["figures"]
    return {"command": "python -m tools.history", "commit": COMMIT, "studies": found, "pilot": pilot}


def _said(study: str, table: str, names: Sequence[str], source: str) -> dict[str, Any]:
    """Claim, verdict and figures with their intervals, by the code in a folder."""
    words = [sys.executable, "-c", _ASKED, study, str(RESULTS / study / table)]
    environment = {"PYTHONPATH": str(Path(source) / "src"), "OMP_NUM_THREADS": "1"}
    said = json.loads(subprocess.run(words, env=environment, check=True, capture_output=True).stdout)  # noqa: S603
    known = said["figures"]
    # Two ways in which intervals were named.
    ends = {name: known.get(f"{name}_interval") or known[name.replace("_gain_", "_gain_interval_")] for name in names}
    return said | {"figures": {name: [known[name], *ends[name]] for name in names}}


if __name__ == "__main__":
    replace_file(FILE, json.dumps(history(), indent=1, ensure_ascii=False).encode() + b"\n")
