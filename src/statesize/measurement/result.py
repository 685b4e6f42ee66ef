"""What was measured of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from statesize.measurement.statistics import between


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """The result of `measure`, on the CPU; the fields of other outputs than the requested are None.

    Attributes:
        positions: Cut positions i, (P,) int64.
        tolerances: τ, (K,), in units of σ.
        relative_tolerances: ρ, (R,), in units of σ_1 at each position.
        count: #{σ > τ}, (..., P, K) int64.
        lower: The smallest tolerance-ESS that the error bound allows, (..., P, K).
        upper: The largest, (..., P, K).
        relative_count: #{σ > ρ σ_1}, (..., P, R) int64.
        relative_lower: The smallest that the error bound allows, (..., P, R).
        relative_upper: The largest, (..., P, R).
        entropy: exp of the entropy of σ/Σσ, (..., P); 0 where σ_1 is within the error bound.
        entropy_bound: |exact − entropy| is at most this, (..., P).
        norm: ‖H_i‖_F, (..., P).
        values: Singular values, (..., P, r), descending, zero-padded.
        state_size: TSS, (P,) int64.
        ceiling: The largest ESS possible, (P,) int64.
        binds: Whether the operator's own size is what limits ESS there, not the ends of the sequence, (P,) bool.
        engine: The engine that was used; two names where a safer one had to help.
        error_bound: δ ≥ |computed σ − σ|, (..., P), round-off included.
        converged: Whether counts at a position are exact and the entropy is known to 0.1 %, (..., P) bool. Only the
            engine `implicit`, for what no other can hold, regularly leaves wider bounds; others do where round-off is
            larger than that.
        past: The window on the past, or None.
        future: The window on the future, or None.
    """

    positions: Tensor
    tolerances: Tensor
    relative_tolerances: Tensor
    norm: Tensor
    error_bound: Tensor
    converged: Tensor
    state_size: Tensor
    ceiling: Tensor
    binds: Tensor
    engine: str
    count: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    relative_count: Tensor | None = None
    relative_lower: Tensor | None = None
    relative_upper: Tensor | None = None
    entropy: Tensor | None = None
    entropy_bound: Tensor | None = None
    values: Tensor | None = None
    past: int | None = None
    future: int | None = None

    def bounds(self, metric: Literal["relative_count", "count"]) -> tuple[Tensor, Tensor]:
        """The smallest and the largest counts of one kind that the error bound allows."""
        names = ("relative_lower", "relative_upper") if metric == "relative_count" else ("lower", "upper")
        return getattr(self, names[0]), getattr(self, names[1])

    def __repr__(self) -> str:
        """Means, engine and bounds, one per line.

        Returns:
            The mean entropy-ESS below its ceiling, where both are known, and facts.
        """
        title, attribute = "Measurement", "values" if self.count is None else "count"
        if self.entropy is not None:
            attribute = "entropy"
            if self.entropy.numel():
                most = self.ceiling.double().expand_as(self.entropy).mean()
                title += f": {self.entropy.mean():.1f} numbers per channel on average, of at most {most:.1f}"
        lines = [f"  {name}: {value}" for name, value in self._facts().items()]
        return "\n".join([title, *lines, f"next: .{attribute}"])

    def _facts(self) -> dict[str, object]:
        shown: dict[str, object] = {"batch shape": tuple(self.norm.shape[:-1])}
        if not self.norm.numel():
            return shown | {"positions": len(self.positions), "engine": self.engine}
        shown["positions"] = f"{len(self.positions)}, {int(self.positions[0])} … {int(self.positions[-1])}"
        shown["ceiling, mean"] = f"{self.ceiling.double().mean():.4g}"
        if self.entropy is not None:
            shown["entropy-ESS, mean"] = f"{self.entropy.mean():.4g}"
        if self.relative_count is not None and len(self.relative_tolerances):
            shown["relative tolerance-ESS, mean"] = self._means("relative_count", self.relative_tolerances, "ρ")
        if self.count is not None and len(self.tolerances):
            shown["tolerance-ESS, mean"] = self._means("count", self.tolerances, "τ")
        if not self.converged.all():
            wide = int((~self.converged).sum())
            shown["bounds wider than asked"] = f"at {wide} of {self.converged.numel()} positions"
        return shown | {"engine": self.engine, "error bound, largest": f"{self.error_bound.max():.2g}"}

    def _means(self, metric: Literal["relative_count", "count"], thresholds: Tensor, sign: str) -> str:
        least, most = (bound.double().flatten(0, -2).mean(0) for bound in self.bounds(metric))
        ends = zip(thresholds, least, most, strict=True)
        return ", ".join(
            f"{between(float(low), float(high), '{:.4g}'.format)} at {sign} = {at:g}" for at, low, high in ends
        )
