"""How much a whole network must remember: the entropy-ESS of its Jacobian from past to future."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from statesize.adapters.faithfulness import bound, relative_difference
from statesize.adapters.forward import Forward
from statesize.adapters.models.checks import Inputs, measurable
from statesize.adapters.models.held import measuring
from statesize.adapters.models.precision import mapped
from statesize.adapters.reference import check_deterministic
from statesize.check import refuse, require_kind, require_real
from statesize.errors import InputError, ModelError
from statesize.network.jacobian import Jacobian
from statesize.network.result import NetworkEss
from statesize.network.span import Span
from statesize.results.settings import memory_bytes
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.exact.dense import block_spectrum
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate

Method = Literal["auto", "lanczos", "dense"]

LEADING = 16
"""How many of the largest singular values are reported."""
# Up to this dimension "auto" forms the Jacobian.
_SMALL = 1024
# Beyond this one, a single probe tells enough, and more powers of the Jacobian are worth more than more probes.
_LONG = 8192


@dataclass(frozen=True)
class Progress:
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
    on_progress: Callable[[Progress], None] | None = None,
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
        on_progress: Called now and then with how far the measurement is.

    Returns:
        A NetworkEss; `converged` is False where memory did not suffice for intervals as close as asked.

    Raises:
        InputError: An argument out of range, or more than one sequence.
        ModelError: No dependence of the end on the start, a module without derivatives, or a model that the copy does
            not reproduce.

    Example:
        >>> import statesize as ss
        >>> model, _ = ss.zoo.load("recall-gla")
        >>> found = ss.network_ess(model, torch.arange(12)[None], positions=[2], method="dense")
        >>> found.dimension.tolist(), found.converged
        ([64], True)
    """
    closeness, budget = checked(accuracy, memory, method)
    with opened(model, input_ids, positions, start, end) as (span, difference, cuts):
        found = [
            _at(span, (i, place, len(cuts)), closeness, method, budget, on_progress) for place, i in enumerate(cuts)
        ]
    return _joined(found, span, difference, cuts)


def checked(accuracy: float, memory: int | str, method: str) -> tuple[float, int]:
    """Accuracy and bytes; what is out of range is refused by its name."""
    if method not in ("auto", "lanczos", "dense"):
        refuse("method", "auto, lanczos or dense", method)
    return require_real("accuracy", accuracy, above=0, below=1), memory_bytes(memory)


@contextmanager
def opened(
    model: nn.Module, input_ids: Inputs, positions: Positions, start: str | None, end: str | None
) -> Generator[tuple[Span, float, tuple[int, ...]]]:
    """The span of a copy in float64, how far it is from the unaltered model, and the cuts."""
    module = measurable(model)
    for name, value in (("start", start), ("end", end)):
        require_kind(name, value, (str, type(None)), "the name of a module or None")
    original = Forward.of(module, input_ids)
    if _sequences(original) != 1:
        raise InputError(f"input_ids must hold one sequence, got {_sequences(original)}. Give one at a time.")
    cut = make_cut(original.length, positions)
    exact = copy.deepcopy(module).double().requires_grad_(False)
    with measuring(module), measuring(exact):
        span = Span(_in_float64(Forward.of(exact, input_ids)), start, end)
        yield span, _run_difference(original, span, start, end), cut.positions


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
    return EntropyEstimate(dimension, accuracy, most, probes=8 if dimension <= _LONG else 1, seed=seed)


def _at(
    span: Span,
    cut: tuple[int, int, int],
    accuracy: float,
    method: str,
    memory: int,
    on_progress: Callable[[Progress], None] | None,
) -> _Found:
    """One position i, the place-th of so many."""
    i, place, positions = cut
    jacobian = Jacobian(span, i)
    dimension, method = jacobian.dimension, method_at(jacobian, method, memory)
    if method == "dense":
        needed = 8 * jacobian.rows * jacobian.columns
        if needed > memory:
            raise InputError(f"memory must be at least {needed} for the Jacobian at {i}, got {memory}. Use 'lanczos'.")
        if on_progress is not None:
            on_progress(Progress(i, place, positions, 0, dimension, math.inf))
        spectrum = block_spectrum(jacobian.dense()[None])
        entropy, error = (float(part) for part in spectrum.entropies(accuracy))
        values, norm = spectrum.values[0, :LEADING], float(spectrum.norms())
        ends, close = (entropy - error, entropy + error), error <= accuracy * entropy
        bounds = spectrum.error_bound.expand(values.shape)
        return _Found(jacobian, method, entropy, ends, values, bounds, norm, dimension, close)
    estimate = estimate_of(jacobian, accuracy, memory, i)
    while not estimate.finished:
        if on_progress is not None:
            on_progress(Progress(i, place, positions, estimate.products, estimate.capacity, estimate.interval.accuracy))
        estimate.advance(jacobian.gram(estimate.pending))
    interval, space = estimate.interval, estimate.space
    square = float(space.ritz.square().sum()) if estimate.exact else float(estimate.squared_norms().mean())
    return _Found(
        jacobian,
        method,
        interval.middle,
        (interval.low, interval.high),
        *space.leading(LEADING),
        math.sqrt(square),
        estimate.products,
        estimate.converged,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found at one position."""

    jacobian: Jacobian
    method: str
    entropy: float
    interval: tuple[float, float]
    values: Tensor
    value_bounds: Tensor
    norm: float
    products: int
    converged: bool


def _joined(found: list[_Found], span: Span, difference: float, positions: tuple[int, ...]) -> NetworkEss:
    def numbers(values: list[Any], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype)

    def padded(values: list[Tensor]) -> Tensor:
        return torch.stack([nn.functional.pad(part, (0, LEADING - part.shape[0])) for part in values])

    return NetworkEss(
        positions=numbers(list(positions), torch.int64),
        entropy=numbers([one.entropy for one in found]),
        interval=numbers([one.interval for one in found]).reshape(-1, 2),
        values=padded([one.values for one in found]),
        value_bounds=padded([one.value_bounds for one in found]),
        norm=numbers([one.norm for one in found]),
        dimension=numbers([one.jacobian.dimension for one in found], torch.int64),
        products=numbers([one.products for one in found], torch.int64),
        converged=all(one.converged for one in found),
        method=", ".join(dict.fromkeys(one.method for one in found)),
        derivatives=", ".join(dict.fromkeys(one.jacobian.way for one in found)),
        start=span.start,
        end=span.end,
        run_difference=difference,
    )


def _sequences(forward: Forward) -> int:
    given = forward.args[0] if forward.args else forward.kwargs.get("input_ids", forward.kwargs.get("inputs_embeds"))
    return int(cast("Tensor", given).shape[0])


def _in_float64(forward: Forward) -> Forward:
    def exact(value: object) -> object:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return replace(forward, args=mapped(forward.args, exact), kwargs=mapped(dict(forward.kwargs), exact))


def _run_difference(original: Forward, span: Span, start: str | None, end: str | None) -> float:
    """How far what the copy computes is from the unaltered model, whose run with hooks equals the one without."""
    unaltered = Span(original, start, end, own_kernels=True)
    check_deterministic(original, unaltered.returned)
    difference = relative_difference(span.outputs, unaltered.outputs.double())
    # What rounding in the model's own dtype adds up to, over all layers.
    limit = 10 * bound(original.model)
    if not difference <= limit:
        raise ModelError(
            f"{span.end} in float64 must be what the model computes, got values that differ by {difference:.1e} of the "
            f"largest; at most {limit:.0e} is rounding. Check that the model computes the same in float64."
        )
    return difference
