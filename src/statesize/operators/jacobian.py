"""The Jacobian of a function as a linear map, known by its products."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

_linalg, _func = cast("Any", torch.linalg), cast("Any", torch.func)
# Relative step of the finite difference with which products are compared, and relative tolerance.
_STEP = {torch.float64: 1e-6, torch.float32: 3e-3}
_TOLERANCE = {torch.float64: 1e-3, torch.float32: 5e-2}

INDEPENDENT = "its outputs do not depend on its inputs"


class Jacobian:
    """J, the derivatives of a function's outputs by its inputs at a point, both flattened; products are in float64.

    Attributes:
        rows: Rows of J, as many as outputs.
        columns: Columns of J, as many as inputs.
        dimension: The smaller side, which no rank can pass.
        method: How products with J are computed, "double backward" or "forward mode".
    """

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor) -> None:
        self._function, self._point, self.columns = function, point.detach(), point.numel()
        with torch.inference_mode(False):
            self._leaf = self._point.clone().requires_grad_()
            self._value = function(self._leaf)
        self.rows = self._value.numel()
        self.dimension = min(self.rows, self.columns)
        self._batched, self.method = True, "double backward"
        self._dual: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode(False)
    def forward(self, vectors: Tensor) -> Tensor:
        """J x of vectors in rows, (k, columns) to (k, rows)."""
        return self._batches(self._forward, vectors, self._point, self.rows)

    @torch.inference_mode(False)
    def adjoint(self, vectors: Tensor) -> Tensor:
        """Jᵀ y of vectors in rows, (k, rows) to (k, columns)."""
        return self._batches(partial(self._pullback, self._value, self._leaf), vectors, self._value, self.columns)

    def gram(self, vectors: Tensor) -> Tensor:
        """JᵀJ x, or J Jᵀ x where J has fewer rows, of vectors in rows, (k, dimension) to (k, dimension)."""
        first, second = (self.adjoint, self.forward) if self.rows < self.columns else (self.forward, self.adjoint)
        return second(first(vectors))

    def fault(self) -> str:
        """Why its products are not the derivative of the function; "" if a finite difference agrees with them."""
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(self._point.shape, generator=generator, dtype=torch.float64).to(self._point)
        step = _STEP[direction.dtype] * (float(self._point.abs().max()) or 1.0)
        with torch.no_grad():
            above, below = (self._function(self._point + sign * step * direction) for sign in (1, -1))
            difference = ((above - below) / (2 * step)).flatten().to("cpu", torch.float64)
        try:
            product = self.forward(direction.reshape(1, -1))[0]
            pulled = self.adjoint(product[None])[0]
        except (RuntimeError, NotImplementedError) as error:
            return str(error).splitlines()[0] if bool(difference.any()) else INDEPENDENT
        if not bool(difference.any() or product.any()):
            return INDEPENDENT
        tolerance, size = _TOLERANCE[self._point.dtype], float(_linalg.vector_norm(difference))
        if not float(_linalg.vector_norm(product - difference)) <= tolerance * size:
            return "a finite difference of its outputs differs from its derivative, as at a maximum of equal numbers"
        # <J x, J x> = <x, Jᵀ J x>.
        square, other = float(product.square().sum()), float((pulled * direction.flatten().cpu()).sum())
        return "" if abs(other - square) <= 1e-3 * tolerance * square else "its forward and backward derivatives differ"

    def _batches(self, function: Callable[[Tensor], Tensor], vectors: Tensor, like: Tensor, side: int) -> Tensor:
        """A function of vectors in batches, each (k, *like) to (k, side)."""
        # The fewest and the most vectors at once, and the numbers that they may be between.
        size = max(8, min(64, 2**18 // max(1, like.numel())))
        parts = torch.split(vectors.to(like).reshape(-1, *like.shape), size)
        products = [function(part).detach().reshape(-1, side) for part in parts]
        return torch.cat(products).to("cpu", torch.float64)

    def _forward(self, vectors: Tensor) -> Tensor:
        if self.method == "double backward":
            try:
                # Jᵀ u is linear in u, and its own derivative by u is J, taken where no logarithm of u is infinite.
                # Forward mode takes twice the time.
                if self._dual is None:
                    u = torch.ones_like(self._value).requires_grad_()
                    (pulled,) = torch.autograd.grad(self._value, self._leaf, u, create_graph=True)
                    self._dual = pulled, u
                return self._pullback(*self._dual, vectors)
            except (RuntimeError, NotImplementedError):
                self.method, self._dual = "forward mode", None

        def product(vector: Tensor) -> Tensor:
            return _func.jvp(self._function, (self._point,), (vector,))[1]

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
