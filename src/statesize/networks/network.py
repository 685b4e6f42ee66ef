"""The ESS of a whole network at some positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Inputs
from statesize.check import require_choice, require_real
from statesize.errors import InputError
from statesize.io.devices import on_cpu_by_default
from statesize.io.text import counted
from statesize.measurement.settings import Positions, Settings, all_but, given_settings
from statesize.measurement.statistics import ENOUGH_TOKENS, too_short
from statesize.models.load import given_sequence
from statesize.networks.jacobian import SpanCopy, SpanJacobian, span_copy
from statesize.spectra.exact.dense import block_spectra
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate


@dataclass(frozen=True, eq=False, repr=False)
class NetworkEss:
    """The result of `network_ess`.

    Attributes:
        positions: Cut positions i, (P,) int64.
        entropy: Entropy-ESS of the Jacobian from inputs before i to outputs from i on, (P,).
        interval: Its lower and upper bound, which hold with a probability of 95 %, (P, 2); with "dense" the bounds are
            those of round-off.
        values: The largest singular values, (P, r), descending; NaN behind those that were computed.
        value_bounds: Error bound of each, (P, r).
        norm: The Jacobian's Frobenius norm, (P,); with "lanczos" an estimate.
        dimension: The smaller side of the Jacobian, (P,) int64, an upper bound of the ESS.
        products: Number of vectors that the Jacobian and its transpose were multiplied with, (P,) int64.
        width: Channels that the start has at each position.
        converged: Whether every interval has the requested accuracy.
        method: "lanczos" or "dense".
        derivatives: Method of products with the Jacobian: "double backward" or "forward mode".
        start: The module whose outputs before i are the inputs of the Jacobian.
        end: The module whose outputs from i on are those of the Jacobian; if it is the last norm, its inputs.
        run_difference: Largest relative difference of these outputs from those of the unaltered model.
    """

    positions: Tensor
    entropy: Tensor
    interval: Tensor
    values: Tensor
    value_bounds: Tensor
    norm: Tensor
    dimension: Tensor
    products: Tensor
    width: int
    converged: bool
    method: str
    derivatives: str
    start: str
    end: str
    run_difference: float

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values.

        Returns:
            A mapping of names to numbers, text and lists.
        """
        rows = zip(*(cast("list[object]", getattr(self, name).tolist()) for name in _COLUMNS), strict=True)
        names = ["position", *_COLUMNS[1:]]
        plain = ("width", "converged", "method", "derivatives", "start", "end", "run_difference")
        positions = [dict(zip(names, row, strict=True)) for row in rows]
        return {"positions": positions} | {name: getattr(self, name) for name in plain}

    def finding(self) -> str:
        """What it carries past the middle one of the cuts, in a sentence."""
        middle = len(self.positions) // 2
        carried, most = float(self.entropy[middle]), int(self.dimension[middle])
        possible = round(most / self.width)
        # All tokens of the text, unless a quarter of enough bounds the cut on one side.
        tokens = min(4 * possible, int(self.positions[middle]) + possible)
        # An estimate that is not as close as requested is told by its ends.
        ends = [carried] if self.converged else cast("list[float]", self.interval[middle].tolist())
        numbers = " to ".join(f"{end:,.0f}" for end in ends)
        each = " to ".join(f"{end / self.width:.1f}" for end in ends)
        return (
            f"The network carries {numbers} numbers past token {self.positions[middle]}, or {each} "
            f"per channel of its hidden state. The text allows {most:,} there, or one per channel for each of "
            f"{counted(possible, 'token')}."
            f"{too_short(tokens, fewest=ENOUGH_TOKENS)}"
        )

    def __repr__(self) -> str:
        sure = "" if self.converged else "; its interval is wider than was asked for"
        way = f"From {self.start} to {self.end}, {self.method}{sure}\nnext: .to_dict(), .entropy, .interval"
        return f"{self.finding()}\n{way}"


_COLUMNS = ("positions", "entropy", "interval", "values", "value_bounds", "norm", "dimension", "products")
_WHOLE = ("positions", "dimension", "products")

Method = Literal["auto", "lanczos", "dense"]

LEADING = 16
"""Number of singular values that are reported, the largest."""
_SMALL = 1024  # the largest dimension at which "auto" forms the Jacobian


@dataclass(frozen=True)
class NetworkProgress:
    """Progress of `network_ess`."""

    position: int  # the cut
    place: int  # number of finished cuts
    positions: int  # number of all cuts
    products: int  # number of vectors so far that the Jacobian at this cut was multiplied with
    likely: int  # how many are likely to be needed, from how close the interval is by now
    low: float  # the interval by now: before the first, from 1 to the dimension
    high: float


@on_cpu_by_default
def network_ess(
    model: nn.Module | str,
    input_ids: Inputs | str | Path,
    positions: Positions = None,
    start: str | None = None,
    end: str | None = None,
    accuracy: float = 0.03,
    method: Method = "auto",
    axis: int | None = None,
    on_progress: Callable[[NetworkProgress], None] | None = None,
    settings: Settings | None = None,
) -> NetworkEss:
    """How much of its past a network carries into its future, all layers and all state together.

    The Jacobian maps changes of the outputs of module `start` before position i to changes of the outputs of module
    `end` from i on. Its entropy-ESS is the number of directions of the past that the future depends on at this input.
    It is defined for every model with derivatives, also for recurrences that are nonlinear in their state (GRU, LSTM,
    sLSTM, test-time training), for which no operator T exists. The derivatives are those of a copy in float64, whose
    outputs are compared with those of the unaltered model.

    With "lanczos", products with the Jacobian and its transpose give an interval that contains the entropy-ESS with a
    probability of 95 %. With "dense", the whole Jacobian is formed.

    Args:
        model: A causal model that returns a tensor, or a tuple whose first tensor is used; or the name of one, as for
            `statesize.profile`.
        input_ids: Token ids of one sequence, (1, L), frames (1, L, W), or the result of a tokenizer; whatever
            `statesize.capture` takes. For a model by its name also a text, or a Path of one.
        positions: Cuts i: an int for that many, the middles of equal parts, a list, or "all". Default: 4.
        start: Name of the module at the inputs of the Jacobian. Default: the token embeddings, or the frames
            themselves.
        end: Name of the module at its outputs. Default: the input of the last norm.
        accuracy: Largest half-width of an interval, relative to its middle.
        method: "lanczos", "dense", or "auto" for the cheaper one.
        axis: The dimension of positions, as for `statesize.capture`.
        on_progress: Called repeatedly with the progress.
        settings: `positions`, and `memory`, of vectors or a dense Jacobian; others do not act here.

    Returns:
        A NetworkEss; `converged` is False if memory was too small for the requested accuracy.

    Raises:
        InputError: An argument out of range, or more than one sequence.
        ModelError: The end does not depend on the start, a module has no derivatives, or the copy does not reproduce
            the model.

    Example:
        >>> import statesize as ss
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
        >>> found = ss.network_ess(model, torch.arange(12)[None], positions=[2], method="dense")
        >>> found.dimension.tolist(), found.converged
        ([16], True)
    """
    require_choice("method", method, get_args(Method))
    settings = given_settings(settings, positions=positions)
    settings = settings.without("network_ess", *all_but("positions", "memory"))
    settings = replace(settings, positions=4) if settings.by_default else settings
    accuracy = require_real("accuracy", accuracy, above=0, below=1)
    with span_copy(*given_sequence(model, input_ids), settings, (start, end), axis) as copied:
        question = _Question(accuracy, method, settings.memory, on_progress or (lambda progress: None))
        cuts = [question.answer(copied, index) for index in range(len(copied.cuts))]
    listed = {name: [cut.pop(name) for cut in cuts] for name in _COLUMNS}
    dtypes = {name: torch.int64 if name in _WHOLE else torch.float64 for name in _COLUMNS}
    ways: dict[str, Any] = {
        name: ", ".join(dict.fromkeys(cut[name] for cut in cuts)) for name in ("method", "derivatives")
    }
    ways["converged"] = all(cut["converged"] for cut in cuts)
    return NetworkEss(
        **{name: torch.tensor(column, dtype=dtypes[name]) for name, column in listed.items()},
        **cuts[0] | ways,
        start=copied.span.start,
        end=copied.span.end,
        run_difference=copied.run_difference,
    )


def _likely_products(estimate: EntropyEstimate, accuracy: float) -> int:
    """About how many products an interval needs; its logarithm's width is about inversely proportional to them."""
    if estimate.finished or not estimate.products:
        return estimate.products or estimate.capacity
    # Half of ln(high / low); before the first interval that of all that is possible.
    width = math.atanh(estimate.interval.accuracy)
    return min(math.ceil(estimate.products * max(1.0, width / math.atanh(accuracy))), estimate.capacity)


@dataclass(frozen=True, eq=False)
class _Question:
    """How each cut is measured; an answer holds its fields of a NetworkEss."""

    accuracy: float
    method: Method
    memory: int
    on_progress: Callable[[NetworkProgress], None]

    def answer(self, copied: SpanCopy, index: int) -> dict[str, Any]:
        i = copied.cuts[index]
        jacobian = SpanJacobian(copied.span, i)
        needed, method = 8 * jacobian.rows * jacobian.columns, self.method
        if method == "auto":
            # Forming a small Jacobian costs about as much as the products of an interval.
            method = "dense" if jacobian.dimension <= _SMALL and needed <= self.memory else "lanczos"
        if method == "dense" and needed > self.memory:
            raise InputError(f"memory must be at least {needed} for a Jacobian, got {self.memory}. Use 'lanczos'.")

        def report(products: int, likely: int, low: float, high: float) -> None:
            self.on_progress(NetworkProgress(i, index, len(copied.cuts), products, likely, low, high))

        answer = (self._by_matrix if method == "dense" else self._by_products)(jacobian, i, report)
        for name in ("values", "value_bounds"):
            answer[name] = nn.functional.pad(answer[name], (0, LEADING - len(answer[name])), value=math.nan).tolist()
        said = {"method": method, "derivatives": jacobian.method, "width": jacobian.columns // i}
        return answer | said | {"positions": i, "dimension": jacobian.dimension}

    def _by_matrix(self, jacobian: SpanJacobian, i: int, report: Callable[..., None]) -> dict[str, Any]:
        dimension = jacobian.dimension
        block = jacobian.dense(lambda rows: report(rows, dimension, 1.0, dimension))
        spectrum = block_spectra([block[None]], torch.tensor([min(block.shape)]), block.new_zeros(0))
        entropy, error = (float(part) for part in spectrum.entropies())
        values = spectrum.values[0, :LEADING]
        return {
            "entropy": entropy,
            "interval": (entropy - error, entropy + error),
            "norm": float(spectrum.norms()),
            "values": values,
            "value_bounds": spectrum.error_bound.expand(values.shape),
            "products": dimension,
            "converged": error <= self.accuracy * entropy,
        }

    def _by_products(self, jacobian: SpanJacobian, i: int, report: Callable[..., None]) -> dict[str, Any]:
        dimension = jacobian.dimension
        # As many products as their vectors in `memory` bytes allow.
        most = min(dimension, max(4, self.memory // 8 // dimension))
        estimate = EntropyEstimate(dimension, self.accuracy, most, seed=i)
        while not estimate.finished:
            likely = _likely_products(estimate, self.accuracy)
            report(estimate.products, likely, estimate.interval.low, estimate.interval.high)
            estimate.advance(jacobian.gram(estimate.pending))
        space = estimate.space
        square = float(space.ritz.square().sum()) if estimate.exact else float(estimate.squared_norms().mean())
        values, bounds = space.leading(LEADING)
        return {
            "entropy": estimate.interval.middle,
            "interval": (estimate.interval.low, estimate.interval.high),
            "norm": math.sqrt(square),
            "values": values,
            "value_bounds": bounds,
            "products": estimate.products,
            "converged": estimate.converged,
        }
