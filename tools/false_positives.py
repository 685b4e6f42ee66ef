"""How often studies find what is not there: python -m tools.false_positives, some minutes of one core."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks.cases import made
from statesize.io.files import replace_file

ROOT = Path(__file__).parents[1]
DRAWS, PLANTED = 1000, 100
OTHER_UNITS = {"regimes": "_by_beginning", "hybrids": "_by_placement"}
"""The ends of figures with other units than the claim's."""


def _simulations() -> Any:
    path = ROOT / "tests" / "lab" / "studies" / "test_simulated.py"
    spec = importlib.util.spec_from_file_location("test_simulated", path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def false_positives(draws: int, planted: int) -> dict[str, Any]:
    """Simulate every design without an effect, and with that of its pilot.

    Args:
        draws: Simulations without an effect, of each kind.
        planted: Simulations with one.

    Returns:
        What results/findings/false_positives.json holds.
    """
    tests, rows = _simulations(), list[dict[str, Any]]()
    for study, preset in tests.DESIGNS:
        row: dict[str, Any] = {"study": study, "preset": preset}
        for name in ("independent", "cell_effects", "shared"):
            found = tests.false_positives(study, preset, (getattr(tests, name.upper()),), draws)
            row |= {name: max(found.values()), f"{name}_holds": found["holds"]}
        if study in OTHER_UNITS:
            by_others = tests.false_positives(study, preset, (tests.SHARED,), draws, OTHER_UNITS[study])
            row["shared" + OTHER_UNITS[study]] = max(count for name, count in by_others.items() if name != "holds")
        held = [
            tests.simulated.conclude(study, preset, seed, tests.PILOT[study], 1.0)[1].holds for seed in range(planted)
        ]
        rows.append(row | {"found": f"{held.count(True)} of {planted}"})
        print(rows[-1], flush=True)
    return {"made": made(), "draws": draws, "designs": rows}


if __name__ == "__main__":
    document = json.dumps(false_positives(DRAWS, PLANTED), indent=1) + "\n"
    replace_file(ROOT / "results" / "findings" / "false_positives.json", document.encode())
