"""What is known of a network's memory at some positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from statesize.html_table import facts_table


@dataclass(frozen=True, eq=False)
class NetworkEss:
    """The result of `network_ess`.

    Attributes:
        positions: Cut positions i, (P,) int64.
        entropy: Entropy-ESS of the Jacobian from inputs before i to outputs from i on, (P,).
        interval: Between which numbers it lies, with a probability of 95 %, (P, 2); by "dense" only round-off is left.
        values: The largest singular values, (P, r), descending, zero-padded.
        value_bounds: How far each may be from a singular value, (P, r).
        norm: The Jacobian's Frobenius norm, (P,); by "lanczos" an estimate.
        dimension: The smaller side of the Jacobian, (P,) int64: no ESS can exceed it.
        products: With how many vectors the Jacobian and its transpose were multiplied, (P,) int64.
        converged: Whether every interval is as close as was asked.
        method: "lanczos" or "dense".
        derivatives: How products with the Jacobian were computed: "double backward" or "forward mode".
        start: The module whose outputs before i are varied.
        end: The module whose outputs, or whose inputs where it is the last norm, are read from i on.
        run_difference: Largest relative difference of what is read from what the unaltered model computes.
    """

    positions: Tensor
    entropy: Tensor
    interval: Tensor
    values: Tensor
    value_bounds: Tensor
    norm: Tensor
    dimension: Tensor
    products: Tensor
    converged: bool
    method: str
    derivatives: str
    start: str
    end: str
    run_difference: float

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON holds it.

        Returns:
            A mapping of names to numbers, text and lists.
        """
        rows = zip(*(cast("list[object]", getattr(self, name).tolist()) for name in _COLUMNS.values()), strict=True)
        plain = ("converged", "method", "derivatives", "start", "end", "run_difference")
        positions = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        return {"positions": positions} | {name: getattr(self, name) for name in plain}

    def _repr_html_(self) -> str:
        facts = {name: getattr(self, name) for name in ("method", "start", "end", "converged")}
        for row in self.to_dict()["positions"]:
            low, high = row["interval"]
            facts[f"entropy-ESS at {row['position']}"] = f"{row['entropy']:.1f} ({low:.1f} … {high:.1f})"
        return facts_table("NetworkEss", facts)


_COLUMNS = {"position": "positions"} | {
    name: name for name in ("entropy", "interval", "values", "value_bounds", "norm", "dimension", "products")
}
