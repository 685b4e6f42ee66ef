"""What is stated of operators of every family, as it was when last looked through.

A bound that changes may be right, but is never unnoticed. `python tests/oracles/known.py` writes the
table anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles.operators import FAMILIES, random_operator
from oracles.recurrences import random_recurrence
from oracles.references import RATIOS

from statesize.measurement.measurement import Measurement, measure
from statesize.operators import Operator, SoftmaxAttention
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import ENGINES, choose_engine
from statesize.spectra.engine import OUTPUTS

TABLE = Path(__file__).with_name("known.json")
LENGTH = 70
WINDOWS = {"whole": (None, None), "past": (12, None), "future": (None, 12), "both": (12, 9)}


def wide_attention() -> Operator:
    """Long enough for several chunks and for a few strips of columns."""
    g = torch.Generator().manual_seed(0)
    query, key = (torch.randn(300, 4, generator=g, dtype=torch.float64) for _ in range(2))
    return SoftmaxAttention(query, key, 0.3)


CASES: dict[str, Callable[[], Operator]] = {
    **{family: lambda family=family: random_operator(family, 1, LENGTH) for family in FAMILIES},
    "diagonal of 40 states": lambda: random_recurrence("diagonal", 0, 200, 40),
    "delta rule of 100 states": lambda: random_recurrence("delta", 0, 150, 100),
    "wide attention": wide_attention,
}


def stated(found: Measurement) -> dict[str, list[float]]:
    """Numbers that a change of what is stated would show in."""
    kept = {"error": found.error_bound, "entropy": found.entropy, "entropy error": found.entropy_bound}
    kept |= {"counts": found.lower, "open": None if found.upper is None else found.upper - found.lower}
    kept |= {"relative": found.relative_lower}
    kept["relative open"] = None if found.relative_upper is None else found.relative_upper - found.relative_lower
    parts = {name: part.double() for name, part in kept.items() if part is not None and part.numel()}
    return {name: rounded(part.max(), part.mean()) for name, part in parts.items()}


def rounded(*numbers: Tensor | float) -> list[float]:
    """Numbers of 7 digits."""
    return [float(f"{number:.7g}") for number in numbers]


def known(case: str, windows: str) -> dict[str, Any]:
    """What is stated of one of `CASES` through one of `WINDOWS` by every engine."""
    operator, (past, future) = CASES[case](), WINDOWS[windows]
    cut = make_cut(operator.length, 9, past, future)
    sigma = measure(operator, (), (), "values", cut.positions, past, future, "dense").values
    tau = [ratio * (float(cast("Tensor", sigma).max()) or 1.0) for ratio in RATIOS.tolist()]
    found = dict[str, Any]()
    for name, engine in ENGINES.items():
        outputs = tuple(output for output in OUTPUTS if output in engine.outputs)
        if engine.unsupported_reason(operator, cut, outputs) is None:
            one = measure(operator, tau, RATIOS.tolist(), outputs, cut.positions, past, future, name)
            found[f"{name}: {one.engine}"] = stated(one)
    if windows == "whole":
        everywhere = measure(operator, (1e-3,), (1e-2,), ("counts", "entropy"))
        found[f"auto: {everywhere.engine}"] = stated(everywhere)
    held, choices = _planned(operator, make_cut(operator.length, None, *WINDOWS[windows]))
    return {"stated": found, "held": held, "choices": choices}


def _planned(operator: Operator, cut: Cut) -> tuple[dict[str, list[int]], list[str]]:
    """How many bytes each engine is said to hold, for an entry and besides, and which are chosen for what."""
    able = {name: engine for name, engine in ENGINES.items() if engine.unsupported_reason(operator, cut, ()) is None}
    held = {name: list(engine.footprint(operator, cut)[:2]) for name, engine in able.items()}
    asked = [("counts",), ("entropy",), ("values",), ("counts", "entropy")]
    return held, [choose_engine(operator, cut, outputs).name for outputs in asked]


def main() -> None:
    """Write the table."""
    table = {f"{case}, {windows}": known(case, windows) for case in CASES for windows in WINDOWS}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(row)}" for case, row in table.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
