"""The derivative of a causal function, known by its products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from statesize.check import refuse, require_finite, shape
from statesize.codes import Code, Note
from statesize.errors import InputError
from statesize.operators.block_dense import BlockDense
from statesize.operators.checked import checked_sizes, kept_numbers
from statesize.operators.jacobian import Jacobian
from statesize.operators.operator import Dense, TensorOperator, batch_index

LARGEST = 4096
"""Positions times channels up to which a derivative is held: it then takes 134 MB, and measuring it about 1 GB."""
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}


class Derivative(TensorOperator):
    """∂y_i/∂x_j of a causal function y(x) at a point: its T[i, j] are matrices q × p, of all outputs by all inputs.

    At position i it has the block of the derivatives of all outputs from i on by all inputs before, as `BlockDense`
    has. The derivative of a linear function is its T; that of a recurrence that is nonlinear in its state has blocks of
    at most the rank of the state. Products with a block are derivatives forward and backward, so that no derivative of
    a long sequence is ever held: `measure` then gives intervals of 95 % for the entropy, and bounds for counts.

    Args:
        function: From inputs (..., L, p) to outputs (..., L, q), a torch function that is differentiable twice, or
            forwards. Entries of the batch do not act on each other.
        point: x, (..., L, p), float64 or float32, in which derivatives are computed.
        state_size: Numbers that are kept at each position, (L,) integers; None for all earlier inputs.

    Raises:
        InputError: Wrong shape or dtype, not finite, not causal, or constant; or the derivative is not what a finite
            difference of the outputs says.

    Example:
        >>> import torch
        >>> from statesize import measure
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     gru, point = torch.nn.GRU(4, 2, batch_first=True).double(), torch.randn(12, 4).double()
        >>> operator = Derivative(lambda inputs: gru(inputs)[0], point)
        >>> measure(operator, relative_tolerances=[1e-9], positions=[6]).relative_count.tolist()
        [[2]]
    """

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor, state_size: Tensor | None = None) -> None:
        sizes, batch = checked_sizes({"point": (point, "L p")})
        if point.dtype not in _ROUNDING:
            refuse("point", "in float64 or float32", point.dtype)
        self.function, self.point = function, point.detach()
        self._entries = torch.arange(batch.numel()).reshape(batch)
        self._weights = torch.ones(*batch, sizes["L"])
        with torch.no_grad():
            outputs = function(self.point)
        if outputs.shape[:-1] != point.shape[:-1]:
            refuse("function", f"one that returns (..., L, q) for {shape(point)}", outputs.shape)
        require_finite("function(point)", outputs)
        self.inputs, self.outputs = sizes["p"], outputs.shape[-1]
        # A small one is measured as a matrix.
        self.by_products = sizes["L"] * max(self.inputs, self.outputs) > LARGEST
        self._state_size = kept_numbers(state_size, self.inputs * torch.arange(sizes["L"]))
        self._describe(point, sizes["L"], batch)
        for entry in range(batch.numel()):
            self._check(entry)

    def jacobian(self, entry: int, past: int, future: int) -> Jacobian:
        """The derivative of outputs from `future` on by inputs before `past`, of one number of the flattened batch."""
        number = int(self._entries.flatten()[entry])
        every = self.point.reshape(-1, *self.point.shape[-2:])
        weights = self._weights.reshape(-1, self.length)[entry, :, None].to(every)

        def function(inputs: Tensor) -> Tensor:
            changed = every[number] + weights * (torch.cat([inputs, every[number, past:]]) - every[number])
            together = torch.cat([every[:number], changed[None], every[number + 1 :]]).reshape(self.point.shape)
            return self.function(together).reshape(-1, self.length, self.outputs)[number, future:]

        return Jacobian(function, every[number, :past])

    def block_dense(self) -> BlockDense:
        """The derivative as a matrix, of the same batch shape, dtype and device."""
        length, sides = self.length, (self.length, self.outputs, self.length, self.inputs)
        later = torch.ones(length, length, dtype=torch.bool).triu(1)[:, None, :, None]
        matrix = torch.zeros(self._entries.numel(), *sides, dtype=torch.float64)
        for entry in range(len(matrix)):
            whole = self.jacobian(entry, length, 0)
            rows = whole.adjoint(torch.eye(whole.rows, dtype=torch.float64))
            # What rounding leaves beyond the diagonal.
            matrix[entry] = rows.reshape(sides).masked_fill(later, 0.0)
        return BlockDense(matrix.reshape(*self.batch_shape, *sides).to(self.device, self.dtype), self.state_size())

    def one_at_a_time(self) -> Dense | None:
        """See `Operator.one_at_a_time`; a long one is measured by products with its blocks."""
        return None if self.by_products else self.block_dense().one_at_a_time()

    def dense(self) -> Tensor:
        """T with the inputs of a position side by side, and its outputs below each other, (..., L q, L p)."""
        return self.block_dense().dense()

    def apply(self, inputs: Tensor) -> Tensor:
        """The products, (..., L q, channels), with all inputs, (..., L p, channels)."""
        vectors = inputs.expand(*self.batch_shape, *inputs.shape[-2:]).reshape(-1, *inputs.shape[-2:]).mT
        products = [self.jacobian(entry, self.length, 0).forward(part).mT for entry, part in enumerate(vectors)]
        return torch.stack(products).reshape(*self.batch_shape, -1, inputs.shape[-1]).to(self.device, self.dtype)

    def weighted(self, weights: Tensor) -> Self:
        """See `Operator.weighted`; all inputs of a position have its weight."""
        return self._changed(_weights=self._weights * weights.detach().cpu())

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Self:
        """See `Operator.to`; derivatives are computed as before, and given in this dtype and on this device."""
        return self._changed(dtype=dtype or self.dtype, device=torch.device(device or self.device))

    def __getitem__(self, index: object) -> Self:
        """See `Operator.__getitem__`."""
        chosen = batch_index(index, self.batch_shape)
        chosen = tuple(part.cpu() if isinstance(part, Tensor) else part for part in chosen)
        entries = self._entries[chosen]
        return self._changed(_entries=entries, _weights=self._weights[chosen], batch_shape=entries.shape)

    def _changed(self, **attributes: object) -> Self:
        changed = copy.copy(self)
        vars(changed).update(attributes)
        return changed

    def _check(self, entry: int) -> None:
        """Refuse a function that is not causal, or whose derivative is not right."""
        length, whole = self.length, self.jacobian(entry, self.length, 0)
        if fault := whole.fault():
            raise InputError(f"function must be differentiable at this point, but {fault}. Choose another text.")
        weights = torch.randn(length, self.outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        # At most 256 cuts, all of a short sequence, and so many at once that their vectors have 2²² numbers.
        cuts = torch.linspace(1, length - 1, min(256, length - 1)).long()
        for some in torch.split(cuts, max(1, 2**22 // weights.numel())):
            before = torch.arange(length) < some[:, None]
            pulled = whole.adjoint((before[..., None] * weights).flatten(1)).reshape(len(some), length, -1)
            sizes = pulled.abs().amax(-1)
            ahead = (sizes * ~before > _ROUNDING[self.point.dtype] * sizes.max()).nonzero()
            if len(ahead):
                at, source = int(some[ahead[0, 0]]), int(ahead[0, 1])
                text = f"function must be causal, but an output before position {at} changes with input {source}."
                raise InputError(Note(Code.LOOKS_AHEAD, f"{text} statesize measures causal models."))
