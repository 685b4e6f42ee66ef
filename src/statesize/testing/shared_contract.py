"""What every group of readouts of one stored input keeps to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from statesize.measurement.measurement import measure
from statesize.operators import Operator, Shared
from statesize.spectra.choice import ORDER
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import with_readouts
from statesize.testing.comparison import compare_values, compare_with_definition


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
        compare_values(shared, _cut(shared), cast("Tensor", measured.values), measured.error_bound)

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
        compare_values(shared, _cut(shared, 3, 1), cast("Tensor", measured.values), measured.error_bound)

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


def _cut(shared: Shared, past: int | None = None, future: int | None = None) -> Cut:
    return replace(make_cut(shared.length, None, past, future), readouts=shared.readouts)
