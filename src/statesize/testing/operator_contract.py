"""What every operator keeps to, and every group of readouts of one stored input."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from statesize.measurement.measurement import hankel_singular_values, measure
from statesize.operators import Operator, Shared
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ORDER, with_readouts
from statesize.testing.comparison import compare_values, compare_with_definition, own_cut


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

    def test_weights_scale_the_columns(self) -> None:
        """`weighted` is T diag(w), of the same state size."""
        operator = self.sample()
        weights = torch.rand(operator.length, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        weighted = operator.weighted(weights.expand(*operator.batch_shape, -1))
        torch.testing.assert_close(weighted.dense(), operator.dense() * weights.to(operator.dtype))
        assert torch.equal(weighted.state_size(), operator.state_size())

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
        assert bool((cast("Tensor", measured.relative_count).squeeze(-1) <= measured.ceiling).all())

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
            # Along random directions: by each entry it took most of the time of the contract.
            assert cast("Any", torch.autograd).gradcheck(self._dense, leaves, fast_mode=True)

    def _dense(self, *tensors: Tensor) -> Tensor:
        return self.build(*tensors).dense()


class SharedContract:
    """A pytest class for `Shared`; a subclass says how to build the operator of the readouts and inherits the checks.

    Example:
        >>> from statesize.operators import Dense
        >>> class TestMyGroup(SharedContract):
        ...     def build(self, generator):
        ...         return Dense(torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64).tril())
        >>> TestMyGroup().test_dense_stacks_the_readouts()
    """

    def build(self, generator: torch.Generator) -> Operator:
        """A random operator in float64 whose last batch dimension is the readouts, with one batch dimension before.

        Args:
            generator: The only source of randomness to use.

        Returns:
            An operator of 4 to about 16 positions.

        Raises:
            NotImplementedError: In a subclass that does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build(generator)")

    def sample(self, seed: int = 0) -> Shared:
        """Random readouts of one input.

        Args:
            seed: Seed of the generator.

        Returns:
            The group.
        """
        return Shared(self.build(torch.Generator().manual_seed(seed)))

    def test_dense_stacks_the_readouts(self) -> None:
        """dense() is (..., L, r, L), each readout that of the operator, and so are its columns."""
        shared = self.sample()
        matrix, each = shared.dense(), shared.operator.dense()
        assert matrix.shape == (*shared.batch_shape, shared.length, shared.outputs, shared.length)
        assert (*shared.batch_shape, shared.outputs) == shared.operator.batch_shape
        for readout in range(shared.outputs):
            assert torch.equal(matrix[..., readout, :], each[..., readout, :, :])
        torch.testing.assert_close(shared.columns(1, 3), matrix[..., 1:, :, 1:3])

    def test_apply_reads_one_input(self) -> None:
        """All readouts answer the same input."""
        shared = self.sample()
        inputs = torch.randn(
            (*shared.batch_shape, shared.length, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        expected = torch.einsum("...irj,...jc->...irc", shared.dense(), inputs)
        torch.testing.assert_close(shared.apply(inputs), expected, rtol=1e-10, atol=1e-10)

    def test_measure_agrees_with_the_definition(self) -> None:
        """The spectrum is that of T_1[i:, :i] … T_r[i:, :i] on top of each other, within the stated bound."""
        shared = self.sample(seed=1)
        measured = measure(shared, outputs=("values",))
        compare_values(shared, own_cut(shared), cast("Tensor", measured.values), measured.error_bound)

    def test_every_engine_agrees_with_the_definition(self) -> None:
        """Each engine that supports such readouts gives that spectrum, its counts and entropies, within its bounds."""
        shared = self.sample(seed=2)
        held, cut = with_readouts(shared, make_cut(shared.length))
        for engine in ORDER:
            if engine.supports(held):
                compare_with_definition(engine, held, cut)

    def test_windows_agree_with_the_definition(self) -> None:
        """So do windows on the past and on the future."""
        shared = self.sample(seed=3)
        measured = measure(shared, outputs=("values",), past=3, future=1)
        compare_values(shared, own_cut(shared, past=3, future=1), cast("Tensor", measured.values), measured.error_bound)

    def test_ess_lies_between_the_largest_and_the_sum(self) -> None:
        """max_h ≤ ESS_g ≤ min(Σ_h, TSS_g, i, r (L − i)) of the ranks."""
        shared = self.sample()
        settings: Any = {"relative_tolerances": (1e-9,), "tolerances": (), "outputs": ("counts",), "engine": "dense"}
        joint, each = measure(shared, **settings), measure(shared.operator, **settings)
        together, alone = (cast("Tensor", result.relative_count).squeeze(-1) for result in (joint, each))
        assert bool((together >= alone.amax(-2)).all())
        assert bool((together <= torch.minimum(alone.sum(-2), joint.ceiling)).all())

    def test_batch_entries_keep_their_readouts(self) -> None:
        """Indexing picks entries, `to` changes the dtype, and neither touches the readouts."""
        shared = self.sample()
        torch.testing.assert_close(shared[0].dense(), shared.dense()[0])
        torch.testing.assert_close(shared[..., -1].dense(), shared.dense()[-1])
        assert shared.to(torch.float32).dense().dtype == torch.float32
