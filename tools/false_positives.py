"""How often studies find what is not there: python -m tools.false_positives, some minutes of one core."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from statesize.io.files import replace_file

ROOT = Path(__file__).parents[1]
DRAWS, PLANTED = 1000, 100


def _simulations() -> Any:
    path = ROOT / "tests" / "lab" / "studies" / "verdicts" / "test_simulated.py"
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
        What docs/results/false_positives.json holds.
    """
    tests, rows = _simulations(), list[dict[str, Any]]()
    for study, preset in tests.DESIGNS:
        worst = [max(tests.false_positives(study, preset, (spread,), draws).values()) for spread in (0.0, 1.0)]
        held = [
            tests.simulated.conclude(study, preset, seed, tests.PILOT[study], 1.0)[1].holds for seed in range(planted)
        ]
        row = {"study": study, "preset": preset, "independent": worst[0], "cell_effects": worst[1]}
        rows.append(row | {"found": f"{held.count(True)} of {planted}"})
        print(rows[-1], flush=True)
    return {"command": "python -m tools.false_positives", "draws": draws, "designs": rows}


if __name__ == "__main__":
    document = json.dumps(false_positives(DRAWS, PLANTED), indent=1) + "\n"
    replace_file(ROOT / "docs" / "results" / "false_positives.json", document.encode())
