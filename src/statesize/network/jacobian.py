"""The Jacobian of a span as a matrix known by its products, from forward- and reverse-mode derivatives."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from statesize.adapters.faithfulness import bound, relative_difference
from statesize.adapters.forward import Forward
from statesize.adapters.models.held import mapped, measuring, stored_dtype
from statesize.adapters.models.inputs import Inputs, measurable
from statesize.adapters.reference import check_deterministic
from statesize.check import refuse, require_kind
from statesize.errors import InputError, ModelError
from statesize.network.span import Span
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.implicit.attention import LinearMap

_linalg, _func = cast("Any", torch.linalg), cast("Any", torch.func)
# Vectors that go through the model at once.
_AT_ONCE = 8
# Of the finite difference that the derivative is compared with: its step, and how far apart they may be, relative.
_STEP, _CLOSE = 1e-6, 1e-3
# Random vectors that tell how far products in single precision are off, and the factor on what they tell.
_COMPARED, _SAFETY = 4, 2


class Jacobian(LinearMap):
    """Of the outputs from position i on with respect to the inputs before i, rows × columns numbers.

    Attributes:
        way: How products with J are computed, "double backward" or "forward mode".
        lost: How far, in the Frobenius norm, it may be from an exact one whose derivatives were checked.
    """

    def __init__(self, span: Span, position: int, exact: Jacobian | None = None) -> None:
        self._past = span.inputs[:position].detach()
        self._span = span
        self.columns = self._past.numel()
        with torch.enable_grad():
            self._leaf = self._past.clone().requires_grad_()
            self._future = span.future(self._leaf)
        self.rows = self._future.numel()
        self._batched, self.way = True, "double backward"
        self._dual: tuple[Tensor, Tensor] | None = None
        self.lost = 0.0
        if exact is None:
            self._check()
        else:
            forward = _distance(self.forward, exact.forward, self.columns)
            self.lost = _SAFETY * (forward + _distance(self.adjoint, exact.adjoint, self.rows))

    @torch.enable_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """J x of vectors in rows, (k, columns) to (k, rows)."""
        return self._in_parts(self._forward, vectors, self._past)

    @torch.enable_grad()
    def adjoint(self, vectors: Tensor) -> Tensor:
        """Jᵀ y of vectors in rows, (k, rows) to (k, columns)."""
        return self._in_parts(lambda part: self._pulled(self._future, self._leaf, part), vectors, self._future)

    def dense(self) -> Tensor:
        """J, or its transpose where J has fewer columns, (dimension, other side)."""
        side = self.forward if self.columns < self.rows else self.adjoint
        identity = torch.eye(self.dimension, dtype=self._past.dtype, device=self._past.device)
        return torch.cat([side(part) for part in torch.split(identity, _AT_ONCE)])

    def _in_parts(self, function: Callable[[Tensor], Tensor], vectors: Tensor, like: Tensor) -> Tensor:
        vectors = vectors.to(like).reshape(-1, *like.shape)
        products = [function(part).detach().flatten(1) for part in torch.split(vectors, _AT_ONCE)]
        return torch.cat(products).to("cpu", torch.float64)

    def _forward(self, vectors: Tensor) -> Tensor:
        if self.way == "double backward":
            try:
                # Jᵀ u is linear in u, and its own derivative with respect to u is J. Forward mode takes twice the time.
                if self._dual is None:
                    u = torch.zeros_like(self._future).requires_grad_()
                    (pulled,) = torch.autograd.grad(self._future, self._leaf, u, create_graph=True)
                    self._dual = pulled, u
                return self._pulled(*self._dual, vectors)
            except (RuntimeError, NotImplementedError):
                self.way, self._dual = "forward mode", None
        with warnings.catch_warnings():
            # torch compiles some derivatives by torch.jit.script when it first needs them.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _func.vmap(self._pushed)(vectors)

    def _pushed(self, vector: Tensor) -> Tensor:
        return _func.jvp(self._span.future, (self._past,), (vector,))[1]

    def _pulled(self, output: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Derivatives of <output, vector> with respect to a source for each vector."""
        if self._batched:
            try:
                return torch.autograd.grad(output, source, vectors, retain_graph=True, is_grads_batched=True)[0]
            except (RuntimeError, NotImplementedError):
                self._batched = False
        return torch.stack([torch.autograd.grad(output, source, part, retain_graph=True)[0] for part in vectors])

    def _check(self) -> None:
        """Refuse a span without dependence or derivatives, and derivatives that are not those of what it computes."""
        generator = torch.Generator().manual_seed(0)
        along = torch.randn(self._past.shape, generator=generator, dtype=torch.float64).to(self._past)
        step = _STEP * float(self._past.abs().max()) or _STEP
        with torch.no_grad():
            ends = [self._span.future(self._past + sign * step * along) for sign in (1, -1)]
            difference = ((ends[0] - ends[1]) / (2 * step)).flatten()
        between = f"{self._span.end} at positions from {self._past.shape[0]} on"
        if not bool(difference.any()):
            raise ModelError(f"{between} must depend on what {self._span.start} returns before, and does not.")
        try:
            product = self.forward(along.reshape(1, -1))[0]
            pulled = self.adjoint(product[None])[0]
        except (RuntimeError, NotImplementedError) as error:
            raise self._without_derivative(str(error).splitlines()[0]) from error
        size = float(_linalg.vector_norm(difference))
        if not float(_linalg.vector_norm(product - difference.cpu())) <= _CLOSE * size:
            raise self._without_derivative("a finite difference of what it computes differs from its derivative")
        # <J x, J x> = <x, Jᵀ J x>.
        square = float(product.square().sum())
        if not abs(float((pulled * along.flatten().cpu()).sum()) - square) <= 1e-6 * square:
            raise self._without_derivative("its forward and backward derivatives differ")

    def _without_derivative(self, reason: str) -> ModelError:
        with torch.enable_grad():
            cutting = self._span.cutting_modules(self._past)
        named = f"Module {cutting[0]}" if cutting else f"What lies between {self._span.start} and {self._span.end}"
        return ModelError(f"{named} must have derivatives, got none that are right: {reason}. Choose another span.")


def _distance(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], size: int) -> float:
    """‖E‖_F of the difference E of two linear maps, as random vectors z tell it: E ‖E z‖² is its square."""
    z = torch.randn(_COMPARED, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return math.sqrt(float((one(z) - other(z)).square().sum()) / _COMPARED)


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
