"""Whether what is measured is what the model computes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.forward import Inputs, check_inputs, check_model, measuring, run_model
from statesize.adapters.interrupts import interrupts_held
from statesize.adapters.observation import Observation
from statesize.adapters.precision import stored_dtype
from statesize.adapters.running import running_modules
from statesize.adapters.sources import observing_all
from statesize.adapters.wrapped import unwrapped
from statesize.errors import InputError, ModelError
from statesize.operators import Dense, Operator

UNITS = 4
# Kernels of every model compute their softmax or scan in float32 even where the weights are float64, and a sum of L·n
# terms, or a product of L decays, rounds some √L to L times: thousands at the lengths that are measured. What was wired
# wrongly is off by tenths.
ROUNDINGS = 2**13


@torch.no_grad()
def unfaithfulness(observation: Observation) -> float:
    """The largest difference between T u and what the model passed on, relative to the largest of the latter.

    Args:
        observation: One call of a kernel.

    Returns:
        The difference on up to 4 units, evenly spread, in float64.

    Raises:
        InputError: What the model passed on is not finite.
    """
    _check_finite(observation)
    count = observation.batch_shape[1]
    units = torch.linspace(0, count - 1, min(UNITS, count)).round().long().to(observation.values.device)
    values, mixed = observation.values[:, units].double(), observation.mixed[:, units].double()
    operator = observation.operator(units).to(torch.float64)
    return relative_difference(observation.passed_on(_applied(operator, values), units).double(), mixed)


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors over the largest absolute value of the second.

    Args:
        value: Any tensor.
        reference: One of the same shape.

    Returns:
        A ratio; 0 for tensors of zeros, infinity where only the reference is 0.
    """
    if not reference.numel():
        return 0.0
    difference, scale = (value - reference).abs().max().item(), reference.abs().max().item()
    return difference / scale if scale else (float("inf") if difference else 0.0)


def bound(mixer: nn.Module) -> float:
    """The relative difference that rounding explains.

    Args:
        mixer: A module that mixes.

    Returns:
        2^13 roundings of float32, 9.8e-4; one rounding of its own weights where that is more, because constants that a
        module holds in bfloat16, such as the decays of lightning attention over one and over many steps, agree to that.
    """
    return max(ROUNDINGS * torch.finfo(torch.float32).eps, torch.finfo(stored_dtype(mixer)).eps)


def check_faithful(name: str, difference: float, what: str, bound: float) -> None:
    """Refuse an operator that is not the model's.

    Args:
        name: The mixer.
        difference: A relative difference.
        what: Where it lies.
        bound: What is rounding.

    Raises:
        ModelError: It is beyond the bound.
    """
    if not difference <= bound:
        raise ModelError(
            f"Mixer {name}: {what} differs from the model's own by {difference:.1e} of its largest value; at most "
            f"{bound:.1e} is rounding. What would be measured is not what the model computes: check that the model is "
            "deterministic and changes nothing in place, or leave this layer out."
        )


def logits_difference(model: nn.Module, inputs: Inputs) -> float | None:
    """The largest difference of the logits with observation from those without, relative to the largest logit.

    Args:
        model: A model; its first output is taken for the logits, as transformers and plain modules return it.
        inputs: Token ids (S, L), or a mapping such as a tokenizer returns.

    Returns:
        The ratio, or None where the model returns no tensor first.
    """
    model = unwrapped(model)
    check_model(model)
    check_inputs(model, inputs)
    with interrupts_held() as interrupts, measuring(model):
        with interrupts.let_through():
            plain = _first(run_model(model, inputs, all_logits=True))
        with running_modules(model) as running, observing_all(model, running, lambda _: None):
            with interrupts.let_through():
                observed = _first(run_model(model, inputs, all_logits=True))
    return None if plain is None or observed is None else relative_difference(observed, plain)


def _first(output: object) -> Tensor | None:
    if isinstance(output, tuple):
        output = next(iter(cast("tuple[object, ...]", output)), None)
    logits: object = getattr(output, "logits", output)
    return logits if isinstance(logits, Tensor) else None


def _applied(operator: Operator, values: Tensor) -> Tensor:
    return operator.dense() @ values if isinstance(operator, Dense) else operator.apply(values)


def _check_finite(observation: Observation) -> None:
    finite = torch.isfinite(observation.mixed)
    if not bool(finite.all()):
        sequence, unit, position = (int(index) for index in (~finite).any(-1).nonzero()[0])
        raise InputError(
            f"Mixer {observation.name}, sequence {sequence}, unit {unit}: the model passes on NaN or infinity, first "
            f"at position {position}. Check the model's weights and inputs for values that are not finite."
        )
