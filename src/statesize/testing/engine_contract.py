"""What every engine keeps to."""

from __future__ import annotations

import torch
from torch import Tensor

from statesize.operators import Convolution, Dense, Derivative, Operator, Recurrence, Shared, SoftmaxAttention
from statesize.spectra.engine import OUTPUTS, Engine
from statesize.testing.comparison import compare_with_definition, own_cut


class EngineContract:
    """A pytest class; a subclass names its engine and inherits the checks against the definition in float64.

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
        """Operators of every kind, of 12 positions and of batch shape (1, 2); override it for kinds of your own.

        Args:
            generator: The only source of randomness to use.

        Returns:
            Those that the engine supports are measured.
        """

        def normal(*shape: int) -> Tensor:
            return torch.randn(1, 2, *shape, generator=generator, dtype=torch.float64)

        length, states = 12, 3
        B, C, decay = normal(length, states), normal(length, states), normal(length, states).sigmoid()
        gate = normal(length).sigmoid()
        modes = torch.polar(decay, normal(length, states))
        return [
            Dense(normal(length, length).tril()),
            Dense(torch.zeros(1, 2, length, length, dtype=torch.float64)),
            Recurrence(decay[..., :1], B, C),
            Recurrence(decay, B, C),
            Recurrence(normal(length, states, states) / 3, B, C),
            Recurrence(modes, B, C),
            Recurrence.delta_rule(B / 2, gate, C, gate),
            Recurrence.diagonal_plus_rank_one(decay, -B / 3, C / 3, B, C),
            Convolution(normal(4), length),
            Convolution(normal(length), length),
            SoftmaxAttention(normal(length, 4), normal(length, 4), 0.5),
            SoftmaxAttention(normal(length, 4), normal(length, 4), 0.5, window=6),
            SoftmaxAttention(
                normal(length, 4), normal(length, 4), 2.0, key_bias=normal(length), sink=normal(), soft_cap=2.0
            ),
            Derivative(lambda inputs: inputs.cumsum(-2).sin(), normal(length, 1)),
            Shared(SoftmaxAttention(normal(3, length, 4), normal(1, length, 4), 0.5)),
        ]

    def _supported(self, seed: int = 0) -> list[Operator]:
        return [batch[0, 0] for batch in self._batches(seed)]

    def _batches(self, seed: int) -> list[Operator]:
        batches = self.operators(torch.Generator().manual_seed(seed))
        supported = [batch for batch in batches if self.engine.supports(batch[0, 0])]
        assert supported, f"{self.engine.name} supports none of the operators that it is checked with"
        return supported

    def test_it_describes_itself(self) -> None:
        """It has a name, outputs and words for what it works on, and says what time and memory it takes."""
        assert all((self.engine.name, self.engine.operators, self.engine.outputs))
        assert self.engine.outputs <= set(OUTPUTS)
        for operator in self._supported():
            each, shared = self.engine.footprint(operator, own_cut(operator))
            assert min(self.engine.seconds(operator, own_cut(operator)), each - 1, shared) >= 0

    def test_it_declines_with_a_reason(self) -> None:
        """What it cannot do it says: operators, outputs and windows; and nothing else."""
        for batch in self.operators(torch.Generator().manual_seed(0)):
            operator = batch[0, 0]
            cut, windowed = own_cut(operator), own_cut(operator, past=3)
            able = self.engine.supports(operator)
            cases = [(cut, (), able), (windowed, (), able and self.engine.windows)]
            cases += [(cut, (output,), able and output in self.engine.outputs) for output in OUTPUTS]
            for blocks, outputs, expected in cases:
                reason = self.engine.unsupported_reason(operator, blocks, outputs)
                assert (reason is None, reason == "") == (expected, False)

    def test_outputs_agree_with_the_definition(self) -> None:
        """Values, counts, entropies and norms lie within the stated bounds, at all positions and at some."""
        for operator in self._supported():
            for positions in (None, [operator.length - 1, 1, 7]):
                compare_with_definition(self.engine, operator, own_cut(operator, positions))

    def test_windows_agree_with_the_definition(self) -> None:
        """So they do of windows on the past, on the future and on both."""
        for operator in self._supported(seed=1) if self.engine.windows else ():
            for past, future in ((3, None), (None, 4), (5, 2)):
                compare_with_definition(self.engine, operator, own_cut(operator, None, past, future))

    def test_extreme_scales(self) -> None:
        """Operators times 1e30 and 1e-30 are measured as well."""
        for operator in self._supported(seed=2):
            for scale in (1e-30, 1e30):
                scaled = operator.weighted(torch.full((operator.length,), scale, dtype=torch.float64))
                if isinstance(operator, Convolution):
                    scaled = Convolution(operator.kernel * scale, operator.length)
                if self.engine.supports(scaled):
                    compare_with_definition(self.engine, scaled, own_cut(scaled))

    def test_batch_entries_are_measured_by_themselves(self) -> None:
        """A batch of several dimensions gives what its entries give alone, within the bounds of both."""
        for batch in self._batches(seed=3):
            entry, cut = batch[0, 0], own_cut(batch)
            together, alone = self.engine.blocks(batch, cut), self.engine.blocks(entry, cut)
            assert together.norms().shape == (1, 2, entry.length - 1)
            close = together.error_bound[0, 0] + alone.error_bound
            assert bool(((together.norms()[0, 0] - alone.norms()).abs() <= close * entry.length**0.5).all())
            (entropy, bound), (single, single_bound) = (blocks.entropies() for blocks in (together, alone))
            assert bool(((entropy[0, 0] - single).abs() <= bound[0, 0] + single_bound).all())

    def test_nothing_to_measure(self) -> None:
        """No positions and no batch entries are no error."""
        for batch in self._batches(seed=0):
            operator = batch[0, 0]
            no_positions = self.engine.blocks(operator, own_cut(operator, []))
            assert no_positions.norms().shape == no_positions.error_bound.shape == (0,)
            no_entries = self.engine.blocks(batch[:, :0], own_cut(batch))
            thresholds = torch.tensor([0.5, 0.1], dtype=torch.float64)
            for counts in (no_entries.counts(thresholds), no_entries.relative_counts(thresholds)):
                assert counts.count.shape == (1, 0, operator.length - 1, 2)
            assert no_entries.entropies()[0].shape == (1, 0, operator.length - 1)

    def test_repeated_calls_agree(self) -> None:
        """Nothing is consumed or changed by a measurement."""
        for operator in self._supported(seed=4):
            before, cut = operator.dense().clone(), own_cut(operator)
            first, second = (self.engine.blocks(operator, cut).entropies()[0] for _ in range(2))
            assert torch.equal(first, second)
            assert torch.equal(operator.dense(), before)
