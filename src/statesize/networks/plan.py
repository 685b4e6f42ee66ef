"""The predicted time of `network_ess`: that of one product, times the number of products that an interval needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from statesize.adapters.forward import Inputs
from statesize.io.steps import Plan, PlannedStep, Steps
from statesize.io.text import byte_count, counted
from statesize.measurement.settings import Positions, Settings
from statesize.models.load import given_sequence
from statesize.networks.jacobian import Precision, SpanJacobian, copies
from statesize.networks.network import Method, estimate_of, likely_products, method_at, network_settings

# Products of the trial that measures their time and the width of the interval.
_TRIAL = 16


@dataclass(frozen=True)
class PlannedCut(PlannedStep):
    """The plan of one cut, whose count is the predicted number of products with the Jacobian and its transpose.

    Attributes:
        position: The cut.
        dimension: The smaller side of the Jacobian.
        method: "lanczos" or "dense".
        most: The largest number of products, as `memory` allows.
        memory: Bytes of the vectors or the Jacobian, beside the model and its activations.
    """

    position: int
    dimension: int
    method: str
    most: int
    memory: int

    @property
    def cells(self) -> dict[str, str]:
        """See `PlannedStep.cells`."""
        return {
            "dimension": f"{self.dimension:,}",
            "method": self.method,
            "products": f"{self.count:,}",
            "at most": f"{self.most:,}",
            "memory": byte_count(self.memory),
        }


def network_plan(
    model: nn.Module | str,
    input_ids: Inputs | str | Path,
    positions: Positions = None,
    start: str | None = None,
    end: str | None = None,
    accuracy: float = 0.03,
    method: Method = "auto",
    precision: Precision = "double",
    axis: int | None = None,
    settings: Settings | None = None,
) -> Plan[PlannedCut]:
    """Plan `network_ess` with the same arguments, and predict its time.

    A few products at the middle cut are timed. The width of an interval is about inversely proportional to their
    number, which predicts how many are needed; the prediction can be off by a factor of two.

    Args:
        model: As for `network_ess`.
        input_ids: As for `network_ess`.
        positions: As for `network_ess`.
        start: As for `network_ess`.
        end: As for `network_ess`.
        accuracy: As for `network_ess`.
        method: As for `network_ess`.
        precision: As for `network_ess`.
        axis: As for `network_ess`.
        settings: As for `network_ess`.

    Returns:
        The plan.

    Raises:
        InputError: As for `network_ess`.
        ModelError: As for `network_ess`.

    Example:
        >>> import statesize as ss, torch
        >>> from transformers import MambaConfig, MambaForCausalLM
        >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
        >>> plan = ss.networks.network_plan(model, torch.arange(12)[None], positions=[2, 6])
        >>> [(cut.position, cut.dimension, cut.method, cut.count) for cut in plan.steps]
        [(2, 16, 'dense', 16), (6, 48, 'dense', 48)]
    """
    accuracy, settings = network_settings(settings, accuracy, method, positions)
    with copies(*given_sequence(model, input_ids), settings, start, end, precision, axis) as copied:
        middle = copied.cuts[len(copied.cuts) // 2]
        jacobian = copied.for_products(copied.jacobian(middle), middle)
        estimate = estimate_of(jacobian, accuracy, settings.memory, middle)
        steps, begin = Steps({}), time.perf_counter()
        while not estimate.finished and estimate.products < _TRIAL:
            estimate.advance(jacobian.gram(estimate.pending))
        steps.took("products", time.perf_counter() - begin, max(1, estimate.products))
        needed, each = likely_products(estimate, accuracy), steps.each("products")
        cuts = tuple(_planned(copied.jacobian(i), i, needed, each, method, settings.memory) for i in copied.cuts)
    work = f"{counted(len(cuts), 'cut')}, {each:.3g} s a product; how many are needed can be off by a factor of two."
    return Plan(cuts, sum(cut.seconds for cut in cuts), work, facts={"product_seconds": each})


def _planned(jacobian: SpanJacobian, i: int, needed: int, seconds: float, method: str, memory: int) -> PlannedCut:
    """One cut; `seconds` are those of a product with J and one with Jᵀ, and a row of a dense J takes one of them."""
    name, dimension, method = f"cut {i}", jacobian.dimension, method_at(jacobian, method, memory)
    if method == "dense":
        size = 8 * jacobian.rows * jacobian.columns
        return PlannedCut(name, dimension, dimension * seconds / 2, i, dimension, method, dimension, size)
    most = estimate_of(jacobian, 0.5, memory, i).capacity
    products = min(needed, most)
    return PlannedCut(name, products, products * seconds, i, dimension, method, most, 8 * products * dimension)
