"""What every operator keeps to."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.measurement.measurement import hankel_singular_values, measure
from statesize.measurement.metrics import ceiling
from statesize.operators import Operator
from statesize.spectra.choice import ORDER
from statesize.spectra.cut import make_cut
from statesize.testing.comparison import compare_values, compare_with_definition


class OperatorContract:
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

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random float64 (or complex128) tensors for `build`, with at least one batch dimension.

        Args:
            generator: The only source of randomness to use.

        Returns:
            What `build` takes.

        Raises:
            NotImplementedError: In a subclass that does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define tensors(generator) and build(*tensors)")

    def build(self, *tensors: Tensor) -> Operator:
        """The operator made of such tensors.

        Args:
            *tensors: As `tensors` returns them.

        Returns:
            An operator of 4 to about 16 positions.

        Raises:
            NotImplementedError: In a subclass that does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define tensors(generator) and build(*tensors)")

    def sample(self, seed: int = 0) -> Operator:
        """A random operator.

        Args:
            seed: Seed of the generator.

        Returns:
            The operator.
        """
        return self.build(*self.tensors(torch.Generator().manual_seed(seed)))

    def test_dense_is_causal(self) -> None:
        """T is (..., L, L), real, finite and 0 above the diagonal."""
        operator = self.sample()
        matrix = operator.dense()
        assert matrix.shape == (*operator.batch_shape, operator.length, operator.length)
        assert matrix.dtype == operator.dtype
        assert matrix.device == operator.device
        assert bool(torch.isfinite(matrix).all())
        assert not bool(matrix.triu(1).any())

    def test_dense_equals_stepping(self) -> None:
        """T's columns are what stepping through the sequence answers to impulses."""
        operator = self.sample()
        impulses = torch.eye(operator.length, dtype=operator.dtype).expand(*operator.batch_shape, -1, -1)
        torch.testing.assert_close(operator.apply(impulses), operator.dense(), rtol=1e-10, atol=1e-12)

    def test_apply_takes_many_channels(self) -> None:
        """Channels are mapped one by one with the same T."""
        operator = self.sample()
        generator = torch.Generator().manual_seed(1)
        shape = (*operator.batch_shape, operator.length, 3)
        inputs = torch.randn(shape, generator=generator, dtype=torch.float64).to(operator.dtype)
        torch.testing.assert_close(operator.apply(inputs), operator.dense() @ inputs, rtol=1e-10, atol=1e-10)

    def test_columns_are_those_of_dense(self) -> None:
        """Requested columns are those of T, from their first row on."""
        operator = self.sample()
        matrix = operator.dense()
        for first, last in ((0, 1), (1, 3), (operator.length - 1, operator.length)):
            torch.testing.assert_close(operator.columns(first, last), matrix[..., first:, first:last])

    def test_measure_agrees_with_the_definition(self) -> None:
        """Whatever engine is chosen, the spectrum is that of T[i:, :i], within the stated bound."""
        operator = self.sample()
        measured = measure(operator, outputs=("values",))
        cut = make_cut(operator.length)
        compare_values(operator, cut, cast("Tensor", measured.values), measured.error_bound)

    def test_every_engine_agrees_with_the_definition(self) -> None:
        """Each engine that supports this operator gives that spectrum, its counts and entropies, within its bounds."""
        operator = self.sample(seed=2)
        cut = make_cut(operator.length)
        for engine in ORDER:
            if engine.supports(operator):
                compare_with_definition(engine, operator, cut)

    def test_state_size_bounds_the_rank(self) -> None:
        """TSS is (L,) int64 and no H_i has a higher rank than its ceiling."""
        operator = self.sample()
        state_size = operator.state_size()
        assert state_size.shape == (operator.length,)
        assert state_size.dtype == torch.int64
        measured = measure(operator, tolerances=(), relative_tolerances=(1e-9,), outputs=("counts",), engine="dense")
        positions = measured.positions
        most = ceiling(state_size[positions], positions, operator.length)
        assert bool((cast("Tensor", measured.relative_count).squeeze(-1) <= most).all())

    def test_batch_entries_are_operators(self) -> None:
        """Indexing picks batch entries and keeps everything else."""
        operator = self.sample()
        matrix = operator.dense()
        torch.testing.assert_close(operator[0].dense(), matrix[0])
        torch.testing.assert_close(operator[:1].dense(), matrix[:1])
        torch.testing.assert_close(operator[..., -1].dense(), matrix[..., -1, :, :])

    def test_float32_is_close_to_float64(self) -> None:
        """`to` changes the dtype and little else."""
        operator = self.sample()
        assert operator.to(torch.float64).dtype == torch.float64
        single = operator.to(torch.float32)
        assert single.dtype == torch.float32
        assert single.dense().dtype == torch.float32
        torch.testing.assert_close(single.dense().double(), operator.dense(), rtol=1e-3, atol=1e-4)

    def test_repeated_calls_agree(self) -> None:
        """Nothing is consumed or changed by a measurement."""
        operator = self.sample()
        before = operator.dense().clone()
        first, second = hankel_singular_values(operator), hankel_singular_values(operator)
        assert torch.equal(first, second)
        assert torch.equal(operator.dense(), before)

    def test_dense_has_gradients(self) -> None:
        """`dense()` is differentiable in every tensor."""
        if self.differentiable:
            tensors = self.tensors(torch.Generator().manual_seed(3))
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            assert cast("Any", torch.autograd).gradcheck(self._dense, leaves)

    def _dense(self, *tensors: Tensor) -> Tensor:
        return self.build(*tensors).dense()
