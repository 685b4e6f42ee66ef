"""Every engine against the definition on small operators, and what this machine is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from statesize.benchmarks.engines import definition
from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Dense, Operator, Recurrence, SoftmaxAttention
from statesize.spectra.choice import ENGINES
from statesize.spectra.cut import make_cut
from statesize.spectra.engine import EngineName
from statesize.spectra.spectrum import effective_rank

_LENGTH, _STATES = 48, 6
# Of the definition itself, in units of σ_1.
_EXACT = 1e-12


def self_check(on_progress: Callable[[int, int, str], object] | None = None) -> list[dict[str, Any]]:
    """Counts and entropies of each engine on each kind of operator that it takes."""
    rows: list[dict[str, Any]] = []
    cut = make_cut(_LENGTH)
    operators = _operators()
    exact = {kind: definition(operator, list(cut.positions)) for kind, operator in operators.items()}
    pairs = [
        (kind, name)
        for kind, operator in operators.items()
        for name, engine in ENGINES.items()
        if engine.unsupported_reason(operator, cut, ("counts", "entropy")) is None
    ]
    for kind, name in pairs:
        answers, right = _compared(operators[kind], name, exact[kind])
        rows.append({"operator": kind, "engine": name, "checked": answers, "right": right})
        if on_progress is not None:
            on_progress(len(rows), len(pairs), f"{name} on a {kind}")
    return rows


def _operators() -> dict[str, Operator]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    key, query, decay = normal(_LENGTH, _STATES), normal(_LENGTH, _STATES), normal(_LENGTH, _STATES).add(2).sigmoid()
    unit = torch.nn.functional.normalize(key, dim=-1)
    return {
        "matrix": Dense(normal(_LENGTH, _LENGTH).tril()),
        "recurrence": Recurrence(decay, key, query),
        "delta rule": Recurrence.delta_rule(unit, normal(_LENGTH).sigmoid(), query, decay),
        "convolution": Convolution(normal(_LENGTH) * 0.9 ** torch.arange(_LENGTH), _LENGTH),
        "softmax attention": SoftmaxAttention(query, key, _STATES**-0.5),
    }


def _compared(operator: Operator, engine: str, exact: Tensor) -> tuple[int, bool]:
    tau = 1e-2 * float(exact.max())
    measured = measure(operator, (tau,), (), engine=cast("EngineName", engine))
    slack = measured.error_bound + _EXACT * exact[:, 0]
    lower, upper = (cast("Tensor", part).squeeze(-1) for part in (measured.lower, measured.upper))
    most = (exact > (tau - slack)[:, None]).sum(-1)
    least = (exact > (tau + slack)[:, None]).sum(-1)
    ess = effective_rank(exact)
    off = (cast("Tensor", measured.entropy) - ess).abs() > cast("Tensor", measured.entropy_bound) + 1e-9 * ess
    right = bool(((lower <= most) & (least <= upper) & ~off).all())
    return 2 * len(ess), right
