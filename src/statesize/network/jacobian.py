"""The Jacobian of a span as a linear map, and the copies of a model whose derivatives are taken."""

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
# Vectors in one batch of products.
_BATCH = 8
# Check of the derivative by a finite difference: relative step and relative tolerance.
_STEP, _TOLERANCE = 1e-6, 1e-3
# Estimate of the error of products in single precision: number of random vectors, and safety factor.
_SAMPLES, _SAFETY = 4, 2
# Tolerated roundings of a run in the model's own dtype; with GPT-2's shape, 14 roundings of its embeddings occur.
_ROUNDINGS = 64

Precision = Literal["double", "single"]


class Jacobian(LinearMap):
    """Derivatives of the outputs from position i on by the inputs before i, (rows, columns)."""

    # method: how products with J are computed, "double backward" or "forward mode". error: estimate of the distance
    # from `exact`, whose derivatives were checked, in the Frobenius norm; 0 without `exact`.

    def __init__(self, span: Span, position: int, exact: Jacobian | None = None) -> None:
        self._past = span.inputs[:position].detach()
        self._span = span
        self.columns = self._past.numel()
        with torch.enable_grad():
            self._leaf = self._past.clone().requires_grad_()
            self._future = span.future(self._leaf)
        self.rows = self._future.numel()
        self._batched, self.method = True, "double backward"
        self._dual: tuple[Tensor, Tensor] | None = None
        self.error = 0.0
        if exact is None:
            self._check()
        else:
            forward = _distance(self.forward, exact.forward, self.columns)
            self.error = _SAFETY * (forward + _distance(self.adjoint, exact.adjoint, self.rows))

    @torch.enable_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """J x of vectors in rows, (k, columns) to (k, rows)."""
        return self._batches(self._forward, vectors, self._past)

    @torch.enable_grad()
    def adjoint(self, vectors: Tensor) -> Tensor:
        """Jᵀ y of vectors in rows, (k, rows) to (k, columns)."""
        return self._batches(lambda part: self._pullback(self._future, self._leaf, part), vectors, self._future)

    def dense(self) -> Tensor:
        """J, or its transpose where J has fewer columns, (dimension, other side)."""
        side = self.forward if self.columns < self.rows else self.adjoint
        identity = torch.eye(self.dimension, dtype=self._past.dtype, device=self._past.device)
        return torch.cat([side(part) for part in torch.split(identity, _BATCH)])

    def _batches(self, function: Callable[[Tensor], Tensor], vectors: Tensor, like: Tensor) -> Tensor:
        vectors = vectors.to(like).reshape(-1, *like.shape)
        products = [function(part).detach().flatten(1) for part in torch.split(vectors, _BATCH)]
        return torch.cat(products).to("cpu", torch.float64)

    def _forward(self, vectors: Tensor) -> Tensor:
        if self.method == "double backward":
            try:
                # Jᵀ u is linear in u, and its own derivative by u is J. Forward mode takes twice the time.
                if self._dual is None:
                    u = torch.zeros_like(self._future).requires_grad_()
                    (pulled,) = torch.autograd.grad(self._future, self._leaf, u, create_graph=True)
                    self._dual = pulled, u
                return self._pullback(*self._dual, vectors)
            except (RuntimeError, NotImplementedError):
                self.method, self._dual = "forward mode", None

        def product(vector: Tensor) -> Tensor:
            return _func.jvp(self._span.future, (self._past,), (vector,))[1]

        with warnings.catch_warnings():
            # torch compiles some derivatives by torch.jit.script when it first needs them.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _func.vmap(product)(vectors)

    def _pullback(self, output: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        """Derivatives of <output, vector> by a source for each vector."""
        if self._batched:
            try:
                return torch.autograd.grad(output, source, vectors, retain_graph=True, is_grads_batched=True)[0]
            except (RuntimeError, NotImplementedError):
                self._batched = False
        return torch.stack([torch.autograd.grad(output, source, part, retain_graph=True)[0] for part in vectors])

    def _check(self) -> None:
        """Refuse a span without dependence, without derivatives, or with derivatives of another function."""
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(self._past.shape, generator=generator, dtype=torch.float64).to(self._past)
        step = _STEP * float(self._past.abs().max()) or _STEP
        with torch.no_grad():
            above, below = (self._span.future(self._past + sign * step * direction) for sign in (1, -1))
            difference = ((above - below) / (2 * step)).flatten()
        between = f"{self._span.end} at positions from {self._past.shape[0]} on"
        if not bool(difference.any()):
            raise ModelError(f"{between} must depend on what {self._span.start} returns before, and does not.")
        try:
            product = self.forward(direction.reshape(1, -1))[0]
            pulled = self.adjoint(product[None])[0]
        except (RuntimeError, NotImplementedError) as error:
            raise self._derivative_error(str(error).splitlines()[0]) from error
        size = float(_linalg.vector_norm(difference))
        if not float(_linalg.vector_norm(product - difference.cpu())) <= _TOLERANCE * size:
            raise self._derivative_error("a finite difference of its outputs differs from its derivative")
        # <J x, J x> = <x, Jᵀ J x>.
        square = float(product.square().sum())
        if not abs(float((pulled * direction.flatten().cpu()).sum()) - square) <= 1e-6 * square:
            raise self._derivative_error("its forward and backward derivatives differ")

    def _derivative_error(self, reason: str) -> ModelError:
        with torch.enable_grad():
            cutting = self._span.cutting_modules(self._past)
        name = f"Module {cutting[0]}" if cutting else f"The span from {self._span.start} to {self._span.end}"
        return ModelError(f"{name} must have derivatives, got none that are right: {reason}. Choose another span.")


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

    def jacobian(self, i: int) -> Jacobian:
        """The exact Jacobian at position i."""
        return Jacobian(self.exact, i)

    def for_products(self, jacobian: Jacobian, i: int) -> Jacobian:
        """The Jacobian in the precision of the products."""
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
    """Copies of a model, whose own weights and mode stay fixed for the time of the block."""
    if precision not in ("double", "single"):
        refuse("precision", "double or single", precision)
    module = measurable(model)
    for name, value in (("start", start), ("end", end)):
        require_kind(name, value, (str, type(None)), "the name of a module or None")
    original = Forward.of(module, input_ids)
    if _sequences(original) != 1:
        raise InputError(f"input_ids must hold one sequence, got {_sequences(original)}. Give one at a time.")
    cut = make_cut(original.length, positions)
    with ExitStack() as contexts:
        contexts.enter_context(measuring(module))

        def span_of_copy(dtype: torch.dtype) -> Span:
            copied = copy.deepcopy(module).to(dtype).requires_grad_(False)
            contexts.enter_context(measuring(copied))
            return Span(_converted(Forward.of(copied, input_ids), dtype), start, end)

        exact = span_of_copy(torch.float64)
        difference = _run_difference(original, exact, start, end)
        single = span_of_copy(torch.float32) if precision == "single" else None
        yield Copies(exact, single, difference, cut.positions)


def _sequences(forward: Forward) -> int:
    inputs = forward.args[0] if forward.args else forward.kwargs.get("input_ids", forward.kwargs.get("inputs_embeds"))
    return int(cast("Tensor", inputs).shape[0])


def _converted(forward: Forward, dtype: torch.dtype) -> Forward:
    def convert(value: object) -> object:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return replace(forward, args=mapped(forward.args, convert), kwargs=mapped(dict(forward.kwargs), convert))


def _run_difference(original: Forward, span: Span, start: str | None, end: str | None) -> float:
    """The relative difference of the copy's outputs from those of the unaltered model."""
    unaltered = Span(original, start, end, own_kernels=True)
    check_deterministic(original, unaltered.returned)
    difference = relative_difference(span.outputs, unaltered.outputs.double())
    # Rounding in the model's own dtype over all layers, which may amplify it.
    limit = 10 * bound(original.model) + _ROUNDINGS * _sensitivity(span, stored_dtype(original.model))
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
