"""The Jacobian of a span, and the copy of a model whose derivatives are taken."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from statesize.adapters.check import check_deterministic
from statesize.adapters.forward import Forward, Inputs
from statesize.adapters.models.model_state import copied, mapped, named_parts, pretrained_models
from statesize.adapters.models.precision import BOUNDS, in_dtype, relative_difference, stored_dtype
from statesize.adapters.models.quantised import measurable
from statesize.adapters.runs import eval_mode
from statesize.check import require_kind
from statesize.errors import InputError, ModelError
from statesize.measurement.settings import Settings
from statesize.networks.span import Span
from statesize.operators.jacobian import INDEPENDENT, Jacobian
from statesize.spectra.cut import Cut

# Rows of a dense Jacobian between two reports.
_ROWS = 64
# Tolerated roundings of a run in the model's own dtype; with GPT-2's shape, 14 roundings of its embeddings occur.
_ROUNDINGS = 64


class SpanJacobian(Jacobian):
    """Derivatives of the outputs of a span from position i on by its inputs before i, (rows, columns)."""

    def __init__(self, span: Span, position: int) -> None:
        try:
            super().__init__(span.future, span.inputs[:position].detach())
            fault = self.fault()
        except NotImplementedError as error:
            fault = str(error).partition(". ")[0]
        if fault:
            needed = "depend on what enters before" if fault == INDEPENDENT else "have derivatives"
            raise ModelError(
                f"The span from {span.start} to {span.end} must {needed} at positions from {position} on: {fault}. "
                "Choose another span, or compute by plain functions."
            )

    def dense(self, on_rows: Callable[[int], None] = lambda rows: None) -> Tensor:
        """J, or its transpose where J has fewer columns, (dimension, other side); told how many rows are there."""
        side = self.forward if self.columns < self.rows else self.adjoint
        parts: list[Tensor] = []
        for start in range(0, self.dimension, _ROWS):
            on_rows(start)
            parts.append(side(torch.eye(self.dimension, dtype=torch.float64)[start : start + _ROWS]))
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class SpanCopy:
    """A copy of a model in float64 over one sequence, and its cut positions."""

    span: Span
    run_difference: float  # of its outputs from those of the unaltered model, relative to the largest
    cuts: tuple[int, ...]


@contextmanager
def span_copy(
    model: nn.Module, input_ids: Inputs, settings: Settings, ends: tuple[str | None, str | None], axis: int | None
) -> Generator[SpanCopy]:
    """A copy of a model between two modules; the model's weights and mode stay fixed for the time of the block."""
    module = measurable(model)
    for name, value in zip(("start", "end"), ends, strict=True):
        require_kind(name, value, (str, type(None)), "the name of a module or None")
    original = Forward.of(module, input_ids, axis)
    if original.sequences != 1:
        raise InputError(f"input_ids must hold one sequence, got {original.sequences}. Give one at a time.")
    settings.check_reach(original.length)
    # Past one token lie as many directions as it has numbers, and as many past all tokens but one.
    cut = cast("Cut", settings.cut(original.length))
    whole = copied(module)
    weights = stored_dtype(whole)
    with eval_mode(module):
        unaltered = Span(original, *ends, own_kernels=True)
        check_deterministic(original, unaltered.returned)
        replica = in_dtype(whole, torch.float64).requires_grad_(False)
        for part in pretrained_models(named_parts(replica)):
            if part.config._attn_implementation == "flex_attention":
                # It has no derivatives of derivatives, and on a CPU none at all.
                part.set_attn_implementation("eager")
            if hasattr(part, "set_experts_implementation"):
                # Fused products of experts take no float64.
                part.set_experts_implementation("eager")
        with eval_mode(replica):
            # Frames are taken in the dtype of the weights.
            forward = _converted(original.of_model(replica, input_ids), torch.float64)
            span = Span(forward, *ends, like=unaltered)
            yield SpanCopy(span, _run_difference(unaltered, span, weights), cut.positions)


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
