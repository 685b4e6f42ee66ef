"""Checks that every operator and every engine passes.

Inherit `OperatorContract`, `SharedContract` or `EngineContract` to run them on an operator or an engine of your own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.errors import EngineError
from statesize.ess import ceiling
from statesize.measurement import hankel_singular_values, measure
from statesize.operators import Convolution, Dense, GatedConvolution, Operator, Recurrence, Shared, SoftmaxAttention
from statesize.spectra.choice import ORDER
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.engine import OUTPUTS, Engine, HankelBlocks
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.readouts import with_readouts


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
        """Columns that are asked for are those of T, from their first row on."""
        operator = self.sample()
        matrix = operator.dense()
        for first, last in ((0, 1), (1, 3), (operator.length - 1, operator.length)):
            torch.testing.assert_close(operator.columns(first, last), matrix[..., first:, first:last])

    def test_measure_agrees_with_the_definition(self) -> None:
        """Whatever engine is chosen, the spectrum is that of T[i:, :i], within the stated bound."""
        operator = self.sample()
        measured = measure(operator, outputs=("values",))
        cut = make_cut(operator.length)
        _compare_values(operator, cut, cast("Tensor", measured.values), measured.error_bound)

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
        assert bool((cast("Tensor", measured.relative_tolerance).squeeze(-1) <= most).all())

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


class SharedContract:
    """A pytest class for `Shared`; a subclass says how to build the operator of the readouts and inherits the checks.

    Example:
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
        assert matrix.shape == (*shared.batch_shape, shared.length, shared.readouts, shared.length)
        assert (*shared.batch_shape, shared.readouts) == shared.operator.batch_shape
        for readout in range(shared.readouts):
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
        _compare_values(shared, _cut(shared), cast("Tensor", measured.values), measured.error_bound)

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
        _compare_values(shared, _cut(shared, 3, 1), cast("Tensor", measured.values), measured.error_bound)

    def test_ess_lies_between_the_largest_and_the_sum(self) -> None:
        """max_h ≤ ESS_g ≤ min(Σ_h, TSS_g, i, r (L − i)) of the ranks."""
        shared = self.sample()
        asked: Any = {"relative_tolerances": (1e-9,), "tolerances": (), "outputs": ("counts",), "engine": "dense"}
        joint, each = measure(shared, **asked), measure(shared.operator, **asked)
        together, alone = (cast("Tensor", found.relative_tolerance).squeeze(-1) for found in (joint, each))
        assert bool((together >= alone.amax(-2)).all())
        assert bool((together <= torch.minimum(alone.sum(-2), joint.ceiling)).all())

    def test_batch_entries_keep_their_readouts(self) -> None:
        """Indexing picks entries, `to` changes the dtype, and neither touches the readouts."""
        shared = self.sample()
        torch.testing.assert_close(shared[0].dense(), shared.dense()[0])
        torch.testing.assert_close(shared[..., -1].dense(), shared.dense()[-1])
        assert shared.to(torch.float32).dense().dtype == torch.float32


class EngineContract:
    """A pytest class; a subclass names its engine and inherits the checks against the dense definition in float64.

    Attributes:
        engine: The engine.

    Example:
        >>> from statesize.spectra.exact.dense import DenseEngine
        >>> class TestMyEngine(EngineContract):
        ...     engine = DenseEngine()
        >>> TestMyEngine().test_outputs_agree_with_the_definition()
    """

    engine: Engine

    def operators(self, generator: torch.Generator) -> list[Operator]:
        """Operators of every kind, of which those that the engine supports are measured.

        Args:
            generator: The only source of randomness to use.

        Returns:
            Unbatched operators of 20 positions; override it for kinds of your own.
        """

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        length, states = 20, 3
        B, C, decay = normal(length, states), normal(length, states), normal(length, states).sigmoid()
        gate = normal(length).sigmoid()
        modes = torch.polar(decay, normal(length, states))
        return [
            Dense(normal(length, length).tril()),
            Dense(torch.zeros(length, length, dtype=torch.float64)),
            Recurrence(decay[:, :1], B, C),
            Recurrence(decay, B, C),
            Recurrence(normal(length, states, states) / 3, B, C),
            Recurrence(modes, B, C),
            Recurrence.delta_rule(B / 2, gate, C, gate),
            Recurrence.diagonal_plus_rank_one(decay, -B / 3, C / 3, B, C),
            Convolution(normal(4), length),
            Convolution(normal(length), length),
            GatedConvolution(normal(5), gate, gate),
            SoftmaxAttention(normal(length, 4), normal(length, 4), 0.5),
            SoftmaxAttention(normal(length, 4), normal(length, 4), 0.5, window=6),
        ]

    def supported(self, seed: int = 0) -> list[Operator]:
        """The operators that the engine supports.

        Args:
            seed: Seed of the generator.

        Returns:
            At least one.
        """
        operators = self.operators(torch.Generator().manual_seed(seed))
        supported = [operator for operator in operators if self.engine.supports(operator)]
        assert supported, f"{self.engine.name} supports none of the operators that it is checked with"
        return supported

    def test_it_describes_itself(self) -> None:
        """It has a name, outputs and words for what it works on and costs; `declines` and `defers` answer in words."""
        assert self.engine.name
        assert self.engine.operators
        assert self.engine.cost
        assert self.engine.outputs
        assert self.engine.outputs <= set(OUTPUTS)
        for operator in self.supported():
            assert self.engine.defers(operator, make_cut(operator.length), ("counts",)) != ""

    def test_it_declines_with_a_reason(self) -> None:
        """What it cannot do it says: operators, outputs and windows; and nothing else."""
        for operator in self.operators(torch.Generator().manual_seed(0)):
            cut, windowed = make_cut(operator.length), make_cut(operator.length, past=3)
            able = self.engine.supports(operator)
            assert (self.engine.declines(operator, cut, ()) is None) == able
            assert (self.engine.declines(operator, windowed, ()) is None) == (able and self.engine.windows)
            for output in OUTPUTS:
                declined = self.engine.declines(operator, cut, (output,))
                assert declined != ""
                assert (declined is None) == (able and output in self.engine.outputs)

    def test_outputs_agree_with_the_definition(self) -> None:
        """Values, counts, entropies and norms lie within the stated bounds, at all positions and at some."""
        for operator in self.supported():
            compare_with_definition(self.engine, operator, make_cut(operator.length))
            compare_with_definition(self.engine, operator, make_cut(operator.length, [operator.length - 1, 1, 7]))

    def test_windows_agree_with_the_definition(self) -> None:
        """So they do of windows on the past, on the future and on both."""
        for operator in self.supported(seed=1) if self.engine.windows else ():
            for past, future in ((3, None), (None, 4), (5, 2)):
                compare_with_definition(self.engine, operator, make_cut(operator.length, None, past, future))

    def test_extreme_scales(self) -> None:
        """Operators times 1e30 and 1e-30 are measured as well."""
        for operator in self.supported(seed=2):
            for scale in (1e-30, 1e30):
                if isinstance(operator, Recurrence) and operator.D is None:
                    scaled: Operator = Recurrence(operator.A, operator.B * scale, operator.C)
                elif isinstance(operator, Convolution):
                    scaled = Convolution(operator.kernel * scale, operator.length)
                else:
                    scaled = Dense(operator.dense() * scale)
                if self.engine.supports(scaled):
                    compare_with_definition(self.engine, scaled, make_cut(scaled.length))

    def test_batch_entries_are_measured_by_themselves(self) -> None:
        """A batch of several dimensions gives what its entries give alone, within the bounds of both."""
        for one, other in zip(self.supported(seed=3), self.supported(seed=4), strict=True):
            batch = _stacked(one, other)
            cut = make_cut(one.length)
            together, alone = self.engine.blocks(batch, cut), self.engine.blocks(one, cut)
            assert together.norms().shape == (1, 2, one.length - 1)
            close = together.error_bound[0, 0] + alone.error_bound
            assert bool(((together.norms()[0, 0] - alone.norms()).abs() <= close * one.length**0.5).all())
            entropy, bound = together.entropies(1e-3)
            single, single_bound = alone.entropies(1e-3)
            assert bool(((entropy[0, 0] - single).abs() <= bound[0, 0] + single_bound).all())

    def test_nothing_to_measure(self) -> None:
        """No positions and no batch entries are no error."""
        for operator in self.supported():
            no_positions = self.engine.blocks(operator, make_cut(operator.length, []))
            assert no_positions.norms().shape == (0,)
            assert no_positions.error_bound.shape == (0,)
            no_entries = self.engine.blocks(_stacked(operator, operator)[:, :0], make_cut(operator.length))
            thresholds = torch.tensor([0.5, 0.1], dtype=torch.float64)
            for counts in (no_entries.counts(thresholds), no_entries.relative_counts(thresholds)):
                assert counts.count.shape == (1, 0, operator.length - 1, 2)
            assert no_entries.entropies(1e-3)[0].shape == (1, 0, operator.length - 1)

    def test_footprints_are_positive_and_grow(self) -> None:
        """Bytes for an entry are positive and no less for a batch of longer sequences; what is needed is no more."""
        for operator in self.supported():
            cut = make_cut(operator.length)
            held, shared = (size(operator, cut) for size in (self.engine.footprint, self.engine.shared_footprint))
            assert held > 0
            assert shared >= 0
            assert 0 < self.engine.least_bytes(operator, cut) <= held + shared

    def test_repeated_calls_agree(self) -> None:
        """Nothing is consumed or changed by a measurement."""
        for operator in self.supported(seed=4):
            before, cut = operator.dense().clone(), make_cut(operator.length)
            first, second = (self.engine.blocks(operator, cut).entropies(1e-3)[0] for _ in range(2))
            assert torch.equal(first, second)
            assert torch.equal(operator.dense(), before)


def compare_with_definition(engine: Engine, operator: Operator, cut: Cut) -> None:
    """Assert that all outputs of an engine lie within its stated bounds of the dense definition."""
    blocks, plain = engine.blocks(operator, cut), DenseEngine().blocks(operator, cut)
    largest = float(plain.values.max()) if plain.values.numel() else 1.0
    _compare_counts(engine.name, blocks, plain, largest)
    entropy, error = blocks.entropies(1e-3)
    exact, exact_error = plain.entropies(1e-3)
    assert bool(((entropy - exact).abs() <= error + exact_error).all()), engine.name
    torch.testing.assert_close(blocks.norms(), plain.norms(), rtol=1e-9, atol=1e-12 * largest)
    if "values" in engine.outputs:
        _compare_values(operator, cut, blocks.singular_values(), blocks.error_bound)
        return
    try:
        blocks.singular_values()
    except EngineError:
        return
    raise AssertionError(f"{engine.name} gives singular values, which it does not count among its outputs")


def _compare_counts(name: str, blocks: HankelBlocks, plain: HankelBlocks, largest: float) -> None:
    tau = torch.tensor([0.3, 1e-2, 1e-5], dtype=torch.float64) * largest
    rho = torch.tensor([0.5, 1e-3], dtype=torch.float64)
    pairs = (
        (blocks.counts(tau), plain.counts(tau)),
        (blocks.relative_counts(rho), plain.relative_counts(rho)),
        (blocks.relative_counts(rho, 0.1), plain.relative_counts(rho)),
    )
    for counts, expected in pairs:
        assert bool((counts.lower <= expected.upper).all()), name
        assert bool((expected.lower <= counts.upper).all()), name
        assert bool(((counts.lower <= counts.count) & (counts.count <= counts.upper)).all()), name


def _compare_values(operator: Operator, cut: Cut, values: Tensor, bound: Tensor) -> None:
    matrix = operator.to(torch.float64).dense()
    matrix = matrix.flatten(-3, -2) if isinstance(operator, Shared) else matrix
    linalg = cast("Any", torch.linalg)
    for place, i in enumerate(cut.positions):
        expected: Tensor = linalg.svdvals(cut.block(matrix, i))
        kept = min(expected.shape[-1], values.shape[-1])
        allowed = bound[..., place] + 1e-14 * expected[..., 0]
        sigma = values[..., place, :]
        assert bool(((sigma[..., :kept] - expected[..., :kept]).abs().amax(-1) <= allowed).all()), f"position {i}"
        beyond = torch.cat([sigma[..., kept:], expected[..., kept:]], -1)
        assert bool((beyond.abs() <= allowed[..., None]).all()), f"position {i}"


def _cut(shared: Shared, past: int | None = None, future: int | None = None) -> Cut:
    return replace(make_cut(shared.length, None, past, future), readouts=shared.readouts)


def _stacked(one: Operator, other: Operator) -> Operator:
    """Two operators of one kind as a batch (1, 2)."""

    def pair(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([first, second])[None]

    if isinstance(one, Recurrence) and isinstance(other, Recurrence):
        return Recurrence(pair(one.A, other.A), pair(one.B, other.B), pair(one.C, other.C))
    if isinstance(one, Convolution) and isinstance(other, Convolution):
        return Convolution(pair(one.kernel, other.kernel), one.length)
    if isinstance(one, SoftmaxAttention) and isinstance(other, SoftmaxAttention):
        return SoftmaxAttention(pair(one.query, other.query), pair(one.key, other.key), one.scale, one.window)
    return Dense(pair(one.dense(), other.dense()))
