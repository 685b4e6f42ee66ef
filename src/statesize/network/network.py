"""What is known of a network's memory at some positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.inputs import Inputs
from statesize.check import refuse, require_real
from statesize.errors import InputError
from statesize.io.text import facts_table
from statesize.measurement.settings import memory_bytes
from statesize.network.jacobian import Copies, Jacobian, Precision, copies
from statesize.spectra.cut import Positions
from statesize.spectra.exact.dense import block_spectrum
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate


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


Method = Literal["auto", "lanczos", "dense"]

LEADING = 16
"""How many of the largest singular values are reported."""
# Up to this dimension "auto" forms the Jacobian.
_SMALL = 1024
# Beyond this one, a single probe tells enough, and more powers of the Jacobian are worth more than more probes.
_LONG = 8192


@dataclass(frozen=True)
class NetworkProgress:
    """How far the measurement of a network is."""

    position: int  # the cut
    place: int  # how many cuts are finished
    positions: int  # how many cuts there are
    products: int  # with how many vectors the Jacobian at this cut was multiplied
    planned: int  # with how many it will be at most
    accuracy: float  # half of the interval relative to its middle; infinite before there is one


def network_ess(
    model: nn.Module,
    input_ids: Inputs,
    positions: Positions = 4,
    start: str | None = None,
    end: str | None = None,
    accuracy: float = 0.03,
    method: Method = "auto",
    memory: int | str = 2**31,
    precision: Precision = "double",
    on_progress: Callable[[NetworkProgress], None] | None = None,
) -> NetworkEss:
    """How much of its past a network carries into its future, all layers and all state together.

    The outputs of module `start` before position i are varied, and those of module `end` from i on are read. The
    entropy-ESS of the Jacobian between the two says how many directions of the past the future depends on at this
    input. It is defined for every model with derivatives, also for recurrences that are nonlinear in their state (GRU,
    LSTM, sLSTM, test-time training), for which no operator T exists. The derivatives are those of a copy in float64,
    whose outputs are compared with those of the unaltered model.

    By "lanczos", products with the Jacobian and its transpose give an interval that holds the entropy-ESS with a
    probability of 95 %; by "dense" the whole Jacobian is formed.

    Args:
        model: A causal model that returns a tensor, or a tuple of which the first one counts.
        input_ids: Token ids of one sequence, (1, L), or what a tokenizer returns.
        positions: Cuts i: an int for that many evenly spread, a list, or None for all of 1 … L − 1.
        start: Name of the module whose output is varied. Default: the token embeddings.
        end: Name of the module whose output is read. Default: what the last norm takes.
        accuracy: How close, relative to it, half of the interval is to be.
        method: "lanczos", "dense", or "auto" for the one that is cheaper.
        memory: Bytes, or a size such as "4GB", for the vectors of "lanczos" or the Jacobian of "dense".
        precision: "single" takes the products of "lanczos" in float32, which takes half the time or less, and adds what
            that changes to the interval.
        on_progress: Called now and then with how far the measurement is.

    Returns:
        A NetworkEss; `converged` is False where memory did not suffice for intervals as close as asked.

    Raises:
        InputError: An argument out of range, or more than one sequence.
        ModelError: No dependence of the end on the start, a module without derivatives, or a model that the copy does
            not reproduce.

    Example:
        >>> import statesize as ss
        >>> model, _ = ss.lab.zoo.load("recall-gla")
        >>> found = ss.network_ess(model, torch.arange(12)[None], positions=[2], method="dense")
        >>> found.dimension.tolist(), found.converged
        ([64], True)
    """
    closeness, budget = checked(accuracy, memory, method)
    with copies(model, input_ids, positions, start, end, precision) as made:
        found = [_at(made, place, closeness, method, budget, on_progress) for place in range(len(made.cuts))]
    return _joined(found, made)


def checked(accuracy: float, memory: int | str, method: str) -> tuple[float, int]:
    """Accuracy and bytes; what is out of range is refused by its name."""
    if method not in ("auto", "lanczos", "dense"):
        refuse("method", "auto, lanczos or dense", method)
    return require_real("accuracy", accuracy, above=0, below=1), memory_bytes(memory)


def method_at(jacobian: Jacobian, method: str, memory: int) -> str:
    """The method that is taken: all of a small Jacobian costs about as much as the products of an interval."""
    if method != "auto":
        return method
    fits = jacobian.dimension <= _SMALL and 8 * jacobian.rows * jacobian.columns <= memory
    return "dense" if fits else "lanczos"


def estimate_of(jacobian: Jacobian, accuracy: float, memory: int, seed: int) -> EntropyEstimate:
    """An interval to be made closer, with as many products as the vectors in so many bytes allow."""
    dimension = jacobian.dimension
    most = min(dimension, max(4, memory // 8 // dimension))
    probes = 8 if dimension <= _LONG else 1
    return EntropyEstimate(dimension, accuracy, most, probes, seed, jacobian.lost)


def _at(
    made: Copies,
    place: int,
    accuracy: float,
    method: str,
    memory: int,
    on_progress: Callable[[NetworkProgress], None] | None,
) -> _Found:
    """One cut."""
    i, positions = made.cuts[place], len(made.cuts)
    jacobian = made.jacobian(i)
    dimension, method = jacobian.dimension, method_at(jacobian, method, memory)
    if method == "dense":
        needed = 8 * jacobian.rows * jacobian.columns
        if needed > memory:
            raise InputError(f"memory must be at least {needed} for the Jacobian at {i}, got {memory}. Use 'lanczos'.")
        if on_progress is not None:
            on_progress(NetworkProgress(i, place, positions, 0, dimension, math.inf))
        spectrum = block_spectrum(jacobian.dense()[None])
        entropy, error = (float(part) for part in spectrum.entropies(accuracy))
        values, norm = spectrum.values[0, :LEADING], float(spectrum.norms())
        ends, close = (entropy - error, entropy + error), error <= accuracy * entropy
        bounds = spectrum.error_bound.expand(values.shape)
        return _Found(method, jacobian.way, entropy, ends, values, bounds, norm, dimension, dimension, close)
    jacobian = made.for_products(jacobian, i)
    estimate = estimate_of(jacobian, accuracy, memory, i)
    while not estimate.finished:
        if on_progress is not None:
            on_progress(
                NetworkProgress(i, place, positions, estimate.products, estimate.capacity, estimate.interval.accuracy)
            )
        estimate.advance(jacobian.gram(estimate.pending))
    interval, space = estimate.interval, estimate.space
    square = float(space.ritz.square().sum()) if estimate.exact else float(estimate.squared_norms().mean())
    return _Found(
        method,
        jacobian.way,
        interval.middle,
        (interval.low, interval.high),
        *space.leading(LEADING),
        math.sqrt(square),
        dimension,
        estimate.products,
        estimate.converged,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found at one position."""

    method: str
    derivatives: str
    entropy: float
    interval: tuple[float, float]
    values: Tensor
    value_bounds: Tensor
    norm: float
    dimension: int
    products: int
    converged: bool


def _joined(found: list[_Found], made: Copies) -> NetworkEss:
    def numbers(values: list[Any], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype)

    def padded(values: list[Tensor]) -> Tensor:
        return torch.stack([nn.functional.pad(part, (0, LEADING - part.shape[0])) for part in values])

    return NetworkEss(
        positions=numbers(list(made.cuts), torch.int64),
        entropy=numbers([one.entropy for one in found]),
        interval=numbers([one.interval for one in found]).reshape(-1, 2),
        values=padded([one.values for one in found]),
        value_bounds=padded([one.value_bounds for one in found]),
        norm=numbers([one.norm for one in found]),
        dimension=numbers([one.dimension for one in found], torch.int64),
        products=numbers([one.products for one in found], torch.int64),
        converged=all(one.converged for one in found),
        method=", ".join(dict.fromkeys(one.method for one in found)),
        derivatives=", ".join(dict.fromkeys(one.derivatives for one in found)),
        start=made.exact.start,
        end=made.exact.end,
        run_difference=made.run_difference,
    )
