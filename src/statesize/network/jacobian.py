"""The Jacobian of a span as a matrix known by its products, from forward- and reverse-mode derivatives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import ModelError
from statesize.network.span import Span
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
