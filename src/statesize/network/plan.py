"""What measuring a network would take: the time of one product, times about how many an interval needs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from torch import nn

from statesize.adapters.models.inputs import Inputs
from statesize.network.jacobian import Jacobian, Precision, copies
from statesize.network.network import Method, checked, estimate_of, method_at
from statesize.spectra.cut import Positions
from statesize.spectra.implicit.entropy_estimate import EntropyEstimate

# Products of a trial, which tell their time and how fast the interval becomes narrower.
_TRIAL = 16


@dataclass(frozen=True)
class PlannedCut:
    """What would be done at one cut.

    Attributes:
        position: The cut.
        dimension: The smaller side of the Jacobian.
        method: "lanczos" or "dense".
        products: With about how many vectors the Jacobian and its transpose would be multiplied.
        most: With how many at most, as `memory` allows.
        seconds: Predicted time.
        memory: Bytes that vectors or Jacobian take, beside the model and its activations.
    """

    position: int
    dimension: int
    method: str
    products: int
    most: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class NetworkPlan:
    """What `network_ess` would do, as `network_plan` found.

    Attributes:
        cuts: One entry a cut.
        product_seconds: Time of one product with the Jacobian and one with its transpose, as measured.
        seconds: Predicted time of all cuts.
    """

    cuts: tuple[PlannedCut, ...]
    product_seconds: float
    seconds: float


def network_plan(
    model: nn.Module,
    input_ids: Inputs,
    positions: Positions = 4,
    start: str | None = None,
    end: str | None = None,
    accuracy: float = 0.03,
    method: Method = "auto",
    memory: int | str = 2**31,
    precision: Precision = "double",
) -> NetworkPlan:
    """Say what `network_ess` would do with the same arguments, and predict its time.

    A few products at the middle cut are timed. The width of an interval falls about as one over their number, so the
    width after these few tells how many are needed; the prediction can be off by a factor of two.

    Args:
        model: As for `network_ess`.
        input_ids: Likewise.
        positions: Likewise.
        start: Likewise.
        end: Likewise.
        accuracy: Likewise.
        method: Likewise.
        memory: Likewise.
        precision: Likewise.

    Returns:
        The plan.

    Raises:
        InputError: As for `network_ess`.
        ModelError: Likewise.

    Example:
        >>> import statesize as ss, torch
        >>> model, _ = ss.lab.zoo.load("recall-gla")
        >>> plan = ss.network.network_plan(model, torch.arange(12)[None], positions=[2, 6])
        >>> [(cut.position, cut.dimension, cut.method, cut.products) for cut in plan.cuts]
        [(2, 64, 'dense', 64), (6, 192, 'dense', 192)]
    """
    closeness, budget = checked(accuracy, memory, method)
    with copies(model, input_ids, positions, start, end, precision) as made:
        at = made.cuts[len(made.cuts) // 2]
        jacobian = made.for_products(made.jacobian(at), at)
        estimate = estimate_of(jacobian, closeness, budget, at)
        begin = time.perf_counter()
        while not estimate.finished and estimate.products < _TRIAL:
            estimate.advance(jacobian.gram(estimate.pending))
        seconds = (time.perf_counter() - begin) / max(1, estimate.products)
        wanted = _wanted(estimate, closeness)
        planned = tuple(_planned(made.jacobian(i), i, wanted, seconds, method, budget) for i in made.cuts)
    return NetworkPlan(planned, seconds, sum(cut.seconds for cut in planned))


def _wanted(estimate: EntropyEstimate, accuracy: float) -> int:
    """About how many products make an interval as close as asked."""
    if estimate.finished:
        return estimate.products
    return math.ceil(estimate.products * max(1.0, estimate.interval.accuracy / accuracy))


def _planned(jacobian: Jacobian, i: int, wanted: int, seconds: float, method: str, memory: int) -> PlannedCut:
    """One cut, of which a product takes so many seconds, both ways; a row of a dense Jacobian takes one way."""
    dimension, taken = jacobian.dimension, method_at(jacobian, method, memory)
    if taken == "dense":
        held = 8 * jacobian.rows * jacobian.columns
        return PlannedCut(i, dimension, taken, dimension, dimension, dimension * seconds / 2, held)
    most = estimate_of(jacobian, 0.5, memory, i).capacity
    products = min(wanted, most)
    return PlannedCut(i, dimension, taken, products, most, products * seconds, 8 * products * dimension)
