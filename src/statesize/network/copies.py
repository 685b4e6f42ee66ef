"""The copies of a model whose derivatives are taken, and how far they are from what the model computes."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from statesize.adapters.faithfulness import bound, relative_difference
from statesize.adapters.forward import Forward
from statesize.adapters.models.held import mapped, measuring, stored_dtype
from statesize.adapters.models.inputs import Inputs, measurable
from statesize.adapters.reference import check_deterministic
from statesize.check import refuse, require_kind
from statesize.errors import InputError, ModelError
from statesize.network.jacobian import Jacobian
from statesize.network.span import Span
from statesize.spectra.cut import Positions, make_cut

Precision = Literal["double", "single"]

# A run in the model's own dtype rounds often; GPT-2's shape is off by as much as 14 roundings of its embeddings.
_ROUNDINGS = 64


@dataclass(frozen=True, eq=False)
class Copies:
    """A model over one sequence as float64 computes it, and where it is cut."""

    exact: Span
    single: Span | None  # as float32 computes it, where products are wanted in single precision
    run_difference: float  # of the exact one from the unaltered model, relative to the largest output
    cuts: tuple[int, ...]

    def jacobian(self, i: int) -> Jacobian:
        """At position i, with derivatives that were checked."""
        return Jacobian(self.exact, i)

    def for_products(self, jacobian: Jacobian, i: int) -> Jacobian:
        """The same in the precision that products are wanted in."""
        return jacobian if self.single is None else Jacobian(self.single, i, exact=jacobian)


@contextmanager
def copies(
    model: nn.Module,
    input_ids: Inputs,
    positions: Positions,
    start: str | None,
    end: str | None,
    precision: Precision,
) -> Generator[Copies]:
    """Copies of a model, while which its own weights and mode are held."""
    if precision not in ("double", "single"):
        refuse("precision", "double or single", precision)
    module = measurable(model)
    for name, value in (("start", start), ("end", end)):
        require_kind(name, value, (str, type(None)), "the name of a module or None")
    original = Forward.of(module, input_ids)
    if _sequences(original) != 1:
        raise InputError(f"input_ids must hold one sequence, got {_sequences(original)}. Give one at a time.")
    cut = make_cut(original.length, positions)
    with ExitStack() as held:
        held.enter_context(measuring(module))

        def span_of_copy(dtype: torch.dtype) -> Span:
            copied = copy.deepcopy(module).to(dtype).requires_grad_(False)
            held.enter_context(measuring(copied))
            return Span(_in(dtype, Forward.of(copied, input_ids)), start, end)

        exact = span_of_copy(torch.float64)
        difference = _run_difference(original, exact, start, end)
        single = span_of_copy(torch.float32) if precision == "single" else None
        yield Copies(exact, single, difference, cut.positions)


def _sequences(forward: Forward) -> int:
    given = forward.args[0] if forward.args else forward.kwargs.get("input_ids", forward.kwargs.get("inputs_embeds"))
    return int(cast("Tensor", given).shape[0])


def _in(dtype: torch.dtype, forward: Forward) -> Forward:
    def cast_to(value: object) -> object:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return replace(forward, args=mapped(forward.args, cast_to), kwargs=mapped(dict(forward.kwargs), cast_to))


def _run_difference(original: Forward, span: Span, start: str | None, end: str | None) -> float:
    """How far what the copy computes is from the unaltered model, whose run with hooks equals the one without."""
    unaltered = Span(original, start, end, own_kernels=True)
    check_deterministic(original, unaltered.returned)
    difference = relative_difference(span.outputs, unaltered.outputs.double())
    # What rounding in the model's own dtype adds up to over all layers, also where these make a change larger.
    limit = 10 * bound(original.model) + _ROUNDINGS * _moved(span, stored_dtype(original.model))
    if not difference <= limit:
        raise ModelError(
            f"{span.end} in float64 must be what the model computes, got values that differ by {difference:.1e} of the "
            f"largest; at most {limit:.0e} is rounding. Check that the model computes the same in float64."
        )
    return difference


@torch.no_grad()
def _moved(span: Span, dtype: torch.dtype) -> float:
    """How far the outputs move, relative to the largest, where each input is rounded to this dtype."""
    generator = torch.Generator().manual_seed(0)
    signs = 1 - 2 * torch.randint(2, span.inputs.shape, generator=generator).to(span.inputs)
    return relative_difference(span.outputs_of(span.inputs * (1 + signs * torch.finfo(dtype).eps / 2)), span.outputs)
