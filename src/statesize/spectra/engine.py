"""What an engine is, and what it makes of an operator: the blocks H_i, from which counts and entropies come."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from torch import Tensor

from statesize.errors import EngineError
from statesize.operators import Derivative, Operator, Shared
from statesize.spectra.cut import Cut

Output: TypeAlias = Literal["counts", "entropy", "values"]
EngineName: TypeAlias = Literal["auto", "dense", "exact", "all_cuts", "small_state", "implicit"]
"""What `engine=` may be; `statesize.spectra.dispatch.ENGINES` holds them but for "auto", which chooses."""
OUTPUTS: tuple[Output, ...] = ("counts", "entropy", "values")
DOUBLE = 8
"""Bytes of a number in float64, in which all engines compute."""
SECONDS = 5e-11
"""Of an operation of products of matrices on one core, by which `Engine.seconds` counts."""


@dataclass(frozen=True, eq=False)
class Counts:
    """How many singular values exceed each threshold, with bounds, (..., P, K) int64 each."""

    count: Tensor
    lower: Tensor
    upper: Tensor


class HankelBlocks(ABC):
    """The blocks H_i of an operator at the P positions of a cut, as an engine holds them.

    Attributes:
        error_bound: δ ≥ |σ̂ − σ| at each position, round-off included, (..., P).
        way: The algorithms that were used up to now, for an engine that chooses between several.
    """

    error_bound: Tensor
    way: str = ""

    @abstractmethod
    def norms(self) -> Tensor:
        """‖H_i‖_F, (..., P)."""

    @abstractmethod
    def counts(self, thresholds: Tensor) -> Counts:
        """#{σ > τ} for absolute thresholds (K,)."""

    @abstractmethod
    def relative_counts(self, ratios: Tensor) -> Counts:
        """#{σ > ρ σ_1} for ratios (R,)."""

    @abstractmethod
    def entropies(self) -> tuple[Tensor, Tensor]:
        """Entropy-ESS and a bound on its error, both (..., P)."""

    def singular_values(self) -> Tensor:
        """σ̂, (..., P, r), descending, zero-padded; an EngineError of engines without the output "values"."""
        raise EngineError("this engine computes counts and entropies; for singular values use exact or dense")


class Footprint(NamedTuple):
    """About how many bytes an engine holds; constants are fitted to peaks of resident memory."""

    each: int  # for each batch entry
    shared: int = 0  # besides, however many the batch entries are


class Engine(ABC):
    """One way to compute Hankel singular values, or counts and entropies of them. It never changes.

    A subclass implements `blocks` and `footprint`; one line in `statesize.spectra.dispatch.ORDER` makes it known, and
    `statesize.testing.EngineContract` checks it.

    Attributes:
        name: The value of `engine=`.
        outputs: What it computes, out of `OUTPUTS`.
        works_on: Classes of operators that it may support; `Shared` and `Derivative` only where they are among them.
        operators: The same in words.
        windows: Whether it can cut H_i by `past` and `future`.
        converts: Whether it takes recurrences in their own dtype and converts a part at a time to float64.
        keeps_device: Whether it computes where the operator lies; on a GPU the small steps of the others take longer.
        block_bytes: Footprint beyond which larger blocks of batch entries only leave the processor's caches.
    """

    name: ClassVar[EngineName]
    outputs: ClassVar[frozenset[str]]
    works_on: ClassVar[tuple[type[Operator], ...]] = (Operator,)
    operators: ClassVar[str] = "every operator"
    windows: ClassVar[bool] = False
    converts: ClassVar[bool] = False
    keeps_device: ClassVar[bool] = False
    block_bytes: ClassVar[int] = 2**62

    @abstractmethod
    def blocks(self, operator: Operator, cut: Cut) -> HankelBlocks:
        """The blocks of an operator that this engine does not decline, in float64 unless it converts itself."""

    def settled(self, operator: Operator, cut: Cut) -> Engine:
        """The same engine with its choice of algorithms made, so that parts of the positions are measured alike."""
        return self

    @abstractmethod
    def footprint(self, operator: Operator, cut: Cut) -> Footprint:
        """About how many bytes it holds."""

    def supports(self, operator: Operator) -> bool:
        """Whether it works on this kind of operator."""
        if isinstance(operator, Shared | Derivative):
            return type(operator) in self.works_on
        return isinstance(operator, self.works_on)

    def unsupported_reason(self, operator: Operator, cut: Cut, outputs: tuple[str, ...]) -> str | None:
        """Why it cannot compute these outputs, or None if it can."""
        if not isinstance(operator, self.works_on) or not self.supports(operator):
            return f"works on {self.operators}, not on this {type(operator).__name__}"
        if cut.windowed and not self.windows:
            return "does not cut blocks by past and future"
        missing = [output for output in outputs if output not in self.outputs]
        return f"does not compute {', '.join(missing)}" if missing else None

    def seconds(self, operator: Operator, cut: Cut) -> float:
        """About how long counts and entropies of one entry take on one core, as "auto" chooses; infinity for never."""
        return math.inf
