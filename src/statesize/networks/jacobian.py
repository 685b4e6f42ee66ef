"""The Jacobian of a span, and the copies of a model whose derivatives are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from statesize.adapters.check import check_deterministic
from statesize.adapters.forward import Forward, Inputs
from statesize.adapters.models.model_state import copied, mapped, named_parts, pretrained_models
from statesize.adapters.models.precision import BOUNDS, in_dtype, relative_difference, stored_dtype
from statesize.adapters.models.quantised import measurable
from statesize.adapters.runs import eval_mode
from statesize.check import require_choice, require_kind
from statesize.errors import InputError, ModelError
from statesize.measurement.settings import Settings
from statesize.networks.span import Span
from statesize.operators.jacobian import INDEPENDENT, Jacobian
from statesize.spectra.cut import Cut

# Estimate of the error of products in single precision: number of random vectors, and safety factor.
_SAMPLES, _SAFETY = 4, 2
# Rows of a dense Jacobian between two reports.
_ROWS = 64
# Tolerated roundings of a run in the model's own dtype; with GPT-2's shape, 14 roundings of its embeddings occur.
_ROUNDINGS = 64

Precision = Literal["double", "single"]


class SpanJacobian(Jacobian):
    """Derivatives of the outputs of a span from position i on by its inputs before i, (rows, columns).

    Attributes:
        error: Estimate of the distance from `exact`, whose derivatives were checked, in the Frobenius norm; 0 without.
    """

    def __init__(self, span: Span, position: int, exact: SpanJacobian | None = None) -> None:
        self._span, past = span, span.inputs[:position].detach()
        try:
            super().__init__(span.future, past)
        except NotImplementedError as error:
            raise ModelError(
                f"The span from {span.start} to {span.end} must have derivatives, got a function that has none here: "
                f"{str(error).partition('. ')[0]}. Choose another span, or compute by plain functions."
            ) from error
        self.error = 0.0
        if exact is None:
            self._check(past)
        else:
            forward = _distance(self.forward, exact.forward, self.columns)
            self.error = _SAFETY * (forward + _distance(self.adjoint, exact.adjoint, self.rows))

    def dense(self, on_rows: Callable[[int], None] = lambda rows: None) -> Tensor:
        """J, or its transpose where J has fewer columns, (dimension, other side); told how many rows are there."""
        side = self.forward if self.columns < self.rows else self.adjoint
        parts: list[Tensor] = []
        for start in range(0, self.dimension, _ROWS):
            on_rows(start)
            parts.append(side(torch.eye(self.dimension, dtype=torch.float64)[start : start + _ROWS]))
        return torch.cat(parts)

    def _check(self, past: Tensor) -> None:
        """Refuse a span without dependence, without derivatives, or with derivatives of another function."""
        fault = self.fault()
        if fault == INDEPENDENT:
            raise ModelError(
                f"{self._span.end} at positions from {len(past)} on must depend on what {self._span.start} returns "
                "before, and does not."
            )
        if fault:
            with torch.enable_grad():
                cutting = self._span.cutting_modules(past)
            name = f"Module {cutting[0]}" if cutting else f"The span from {self._span.start} to {self._span.end}"
            raise ModelError(f"{name} must have derivatives, got none that are right: {fault}. Choose another span.")


def _distance(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], size: int) -> float:
    """An estimate of ‖E‖_F of the difference E of two linear maps: for random z, ‖E z‖² has the mean ‖E‖_F²."""
    z = torch.randn(_SAMPLES, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return math.sqrt(float((first(z) - second(z)).square().sum()) / _SAMPLES)


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of a model over one sequence, and its cut positions."""

    exact: Span  # in float64
    single: Span | None  # in float32, for products in single precision
    run_difference: float  # of the outputs of `exact` from the unaltered model, relative to the largest
    cuts: tuple[int, ...]

    def jacobian(self, i: int) -> SpanJacobian:
        """The exact Jacobian at position i."""
        return SpanJacobian(self.exact, i)

    def for_products(self, jacobian: SpanJacobian, i: int) -> SpanJacobian:
        """The Jacobian in the precision of the products."""
        return jacobian if self.single is None else SpanJacobian(self.single, i, exact=jacobian)


@contextmanager
def copies(
    model: nn.Module,
    input_ids: Inputs,
    settings: Settings,
    start: str | None,
    end: str | None,
    precision: Precision,
    axis: int | None = None,
) -> Generator[Copies]:
    """Copies of a model, whose own weights and mode stay fixed for the time of the block."""
    require_choice("precision", precision, get_args(Precision))
    module = measurable(model)
    for name, value in (("start", start), ("end", end)):
        require_kind(name, value, (str, type(None)), "the name of a module or None")
    original = Forward.of(module, input_ids, axis)
    if original.sequences != 1:
        raise InputError(f"input_ids must hold one sequence, got {original.sequences}. Give one at a time.")
    settings.check_reach(original.length)
    # Past one token lie as many directions as it has numbers, and as many past all tokens but one.
    cut = cast("Cut", settings.cut(original.length))
    with ExitStack() as contexts:

        def span_of(replica: nn.Module, dtype: torch.dtype) -> Span:
            replica = in_dtype(replica, dtype).requires_grad_(False)
            for part in pretrained_models(named_parts(replica)):
                if part.config._attn_implementation == "flex_attention":
                    # It has no derivatives of derivatives, and on a CPU none at all.
                    part.set_attn_implementation("eager")
                if dtype is torch.float64 and hasattr(part, "set_experts_implementation"):
                    # Fused products of experts take no float64.
                    part.set_experts_implementation("eager")
            contexts.enter_context(eval_mode(replica))
            # Frames are taken in the dtype of the weights.
            return Span(_converted(original.of_model(replica, input_ids), dtype), start, end, like=unaltered)

        whole = copied(module)
        other = copied(module) if precision == "single" else None
        weights = stored_dtype(whole)
        contexts.enter_context(eval_mode(module))
        unaltered = Span(original, start, end, own_kernels=True)
        check_deterministic(original, unaltered.returned)
        exact = span_of(whole, torch.float64)
        difference = _run_difference(unaltered, exact, weights)
        single = None if other is None else span_of(other, torch.float32)
        yield Copies(exact, single, difference, cut.positions)


def _converted(forward: Forward, dtype: torch.dtype) -> Forward:
    convert = partial(in_dtype, dtype=dtype)
    return replace(forward, args=mapped(forward.args, convert), kwargs=mapped(dict(forward.kwargs), convert))


def _run_difference(unaltered: Span, span: Span, weights: torch.dtype) -> float:
    """The relative difference of the copy's outputs from those of the unaltered model, by the dtype of its weights."""
    difference, limit = relative_difference(span.outputs, unaltered.outputs.double()), 10 * BOUNDS[weights]
    if not difference <= limit:
        # Rounding in the model's own dtype over all layers, which may amplify it.
        limit += _ROUNDINGS * _sensitivity(span, weights)
    if not difference <= limit:
        raise ModelError(
            f"{span.end} in float64 must be what the model computes, got values that differ by {difference:.1e} of the "
            f"largest; at most {limit:.0e} is rounding. Check that the model computes the same in float64."
        )
    return difference


@torch.no_grad()
def _sensitivity(span: Span, dtype: torch.dtype) -> float:
    """The relative change of the outputs if each input is rounded to a dtype."""
    generator = torch.Generator().manual_seed(0)
    signs = 1 - 2 * torch.randint(2, span.inputs.shape, generator=generator).to(span.inputs)
    return relative_difference(span.outputs_of(span.inputs * (1 + signs * torch.finfo(dtype).eps / 2)), span.outputs)
