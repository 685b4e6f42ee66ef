"""What every operator keeps to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor

from statesize.measurement.measurement import hankel_singular_values, measure
from statesize.operators import Operator
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ORDER
from statesize.testing.comparison import compare_values, compare_with_definition


class OperatorContract(ABC):
    """A pytest class; a subclass says how to build its operator and inherits the checks.

    Attributes:
        differentiable: Whether `dense()` promises gradients with respect to every tensor.

    Example:
        >>> from statesize.operators import Convolution
        >>> class TestMyConvolution(OperatorContract):
        ...     def tensors(self, generator):
        ...         return (torch.randn(2, 4, generator=generator, dtype=torch.float64),)
        ...     def build(self, kernel):
        ...         return Convolution(kernel, length=9)
        >>> TestMyConvolution().test_dense_equals_stepping()
    """

    differentiable = True

    @abstractmethod
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random float64 (or complex128) tensors for `build`, with at least one batch dimension.

        Args:
            generator: The only source of randomness to use.
        """

    @abstractmethod
    def build(self, *tensors: Tensor) -> Operator:
        """The operator of 4 to about 16 positions that is made of such tensors.

        Args:
            *tensors: As `tensors` returns them.
        """

    def _sample(self, seed: int = 0) -> Operator:
        return self.build(*self.tensors(torch.Generator().manual_seed(seed)))

    def test_dense_is_causal(self) -> None:
        """T is (..., L, L), real, finite and 0 above the diagonal."""
        operator = self._sample()
        matrix = operator.dense()
        assert matrix.shape == (*operator.batch_shape, operator.length, operator.length)
        assert (matrix.dtype, matrix.device) == (operator.dtype, operator.device)
        assert bool(torch.isfinite(matrix).all())
        assert not bool(matrix.triu(1).any())

    def test_dense_equals_stepping(self) -> None:
        """Stepping through the sequence maps each of several channels by T."""
        operator = self._sample()
        matrix, generator = operator.dense(), torch.Generator().manual_seed(1)
        channels = torch.randn(*matrix.shape[:-1], 3, generator=generator, dtype=torch.float64).to(operator.dtype)
        inputs = torch.cat([torch.eye(operator.length).to(matrix).expand_as(matrix), channels], -1)
        torch.testing.assert_close(operator.apply(inputs), matrix @ inputs, rtol=1e-10, atol=1e-10)

    def test_columns_are_those_of_dense(self) -> None:
        """Requested columns are those of T, from their first row on."""
        operator = self._sample()
        matrix = operator.dense()
        for first, last in ((0, 1), (1, 3), (operator.length - 1, operator.length)):
            torch.testing.assert_close(operator.columns(first, last), matrix[..., first:, first:last])

    def test_weights_scale_the_columns(self) -> None:
        """`weighted` is T diag(w), of the same state size."""
        operator = self._sample()
        weights = torch.rand(operator.length, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        weighted = operator.weighted(weights.expand(*operator.batch_shape, -1))
        torch.testing.assert_close(weighted.dense(), operator.dense() * weights.to(operator.dtype))
        assert torch.equal(weighted.state_size(), operator.state_size())

    def test_every_engine_agrees_with_the_definition(self) -> None:
        """The chosen engine, and each that supports this operator, lie within their bounds of σ(T[i:, :i])."""
        operator = self._sample()
        cut, measured = make_cut(operator.length), measure(operator, outputs=("values",))
        compare_values(operator, cut, cast("Tensor", measured.values), measured.error_bound)
        for engine in ORDER:
            if engine.supports(operator):
                compare_with_definition(engine, operator, cut)

    def test_state_size_bounds_the_rank(self) -> None:
        """TSS is (L,) int64 and no H_i has a higher rank than its ceiling."""
        operator = self._sample()
        state_size = operator.state_size()
        assert (state_size.shape, state_size.dtype) == ((operator.length,), torch.int64)
        measured = measure(operator, tolerances=(), relative_tolerances=(1e-9,), outputs=("counts",), engine="dense")
        assert bool((cast("Tensor", measured.relative_count).squeeze(-1) <= measured.ceiling).all())

    def test_batch_entries_are_operators(self) -> None:
        """Indexing picks batch entries and keeps everything else."""
        operator = self._sample()
        matrix = operator.dense()
        torch.testing.assert_close(operator[0].dense(), matrix[0])
        torch.testing.assert_close(operator[:1].dense(), matrix[:1])
        torch.testing.assert_close(operator[..., -1].dense(), matrix[..., -1, :, :])

    def test_float32_is_close_to_float64(self) -> None:
        """`to` changes the dtype and little else."""
        operator = self._sample()
        assert operator.to(torch.float64).dtype == torch.float64
        single = operator.to(torch.float32)
        assert single.dtype == single.dense().dtype == torch.float32
        torch.testing.assert_close(single.dense().double(), operator.dense(), rtol=1e-3, atol=1e-4)

    def test_repeated_calls_agree(self) -> None:
        """Nothing is consumed or changed by a measurement."""
        operator = self._sample()
        before = operator.dense().clone()
        assert torch.equal(hankel_singular_values(operator), hankel_singular_values(operator))
        assert torch.equal(operator.dense(), before)

    def test_dense_has_gradients(self) -> None:
        """`dense()` is differentiable in every tensor."""
        if self.differentiable:
            leaves = [part.detach().requires_grad_() for part in self.tensors(torch.Generator().manual_seed(3))]
            # Along random directions: by each entry it took most of the time of the contract.
            assert cast("Any", torch.autograd).gradcheck(self._dense, leaves, fast_mode=True)

    def _dense(self, *tensors: Tensor) -> Tensor:
        return self.build(*tensors).dense()
