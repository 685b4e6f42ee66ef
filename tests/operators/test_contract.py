"""Every operator that statesize has passes the contract that it offers to others."""

import torch
from torch import Tensor

from statesize.operators import Convolution, Dense, Operator, Recurrence, SoftmaxAttention
from statesize.testing import OperatorContract

LENGTH, STATES = 7, 3


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def complex_normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.complex128)


class TestDense(OperatorContract):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (normal(generator, 2, 3, LENGTH, LENGTH),)

    def build(self, *tensors: Tensor) -> Operator:
        return Dense(tensors[0].tril())


class TestScalarRecurrence(OperatorContract):
    decay_shape: tuple[int, ...] = (1,)

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        vectors = [normal(generator, 2, 3, LENGTH, STATES) for _ in range(2)]
        return (normal(generator, 2, 1, LENGTH, *self.decay_shape).sigmoid(), *vectors)

    def build(self, *tensors: Tensor) -> Operator:
        return Recurrence(*tensors)


class TestDiagonalRecurrence(TestScalarRecurrence):
    decay_shape = (STATES,)


class TestFullRecurrence(TestScalarRecurrence):
    decay_shape = (STATES, STATES)


class TestRecurrenceWithFeedThrough(TestDiagonalRecurrence):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (*super().tensors(generator), normal(generator, 1, 3, 1))


class TestRecurrenceWithFeedThroughAtEachPosition(TestDiagonalRecurrence):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (*super().tensors(generator), normal(generator, 2, 1, LENGTH))


class TestComplexDiagonalRecurrence(OperatorContract):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        A = complex_normal(generator, 2, LENGTH, STATES) / 2
        return A, complex_normal(generator, 2, LENGTH, STATES), complex_normal(generator, 1, LENGTH, STATES)

    def build(self, *tensors: Tensor) -> Operator:
        return Recurrence(*tensors)


class TestComplexFullRecurrence(TestComplexDiagonalRecurrence):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        _, B, C = super().tensors(generator)
        return complex_normal(generator, 2, LENGTH, STATES, STATES) / 3, B, C


class TestConjugatePairs(OperatorContract):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        A = complex_normal(generator, 2, LENGTH, STATES) / 2
        return A, complex_normal(generator, 2, LENGTH, STATES), complex_normal(generator, 2, LENGTH, STATES)

    def build(self, *tensors: Tensor) -> Operator:
        return Recurrence(*(torch.cat([part, part.conj()], -1) for part in tensors), conjugate_pairs=True)


class TestDeltaRule(OperatorContract):
    decay_shape: tuple[int, ...] = ()

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        key, query = (normal(generator, 2, 3, LENGTH, STATES) for _ in range(2))
        beta = normal(generator, 2, 3, LENGTH).sigmoid()
        return key / 2, beta, query, normal(generator, 2, 1, LENGTH, *self.decay_shape).sigmoid()

    def build(self, *tensors: Tensor) -> Operator:
        return Recurrence.delta_rule(*tensors)


class TestDeltaRuleWithDiagonalDecay(TestDeltaRule):
    decay_shape = (STATES,)


class TestDiagonalPlusRankOne(OperatorContract):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        column, row, B, C = (normal(generator, 2, 3, LENGTH, STATES) for _ in range(4))
        return normal(generator, 2, 1, LENGTH, STATES).sigmoid(), column / 2, row / 2, B, C

    def build(self, *tensors: Tensor) -> Operator:
        return Recurrence.diagonal_plus_rank_one(*tensors)


class TestConvolution(OperatorContract):
    taps = 4

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (normal(generator, 2, 3, self.taps),)

    def build(self, *tensors: Tensor) -> Operator:
        return Convolution(tensors[0], LENGTH)


class TestConvolutionLongerThanTheSequence(TestConvolution):
    taps = LENGTH + 3


class TestSoftmaxAttention(OperatorContract):
    window: int | None = None

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return normal(generator, 2, 3, LENGTH, 4), normal(generator, 2, 1, LENGTH, 4)

    def build(self, *tensors: Tensor) -> Operator:
        return SoftmaxAttention(tensors[0], tensors[1], scale=0.5, window=self.window)


class TestSlidingWindowAttention(TestSoftmaxAttention):
    window = 3


class TestBiasedAttention(TestSoftmaxAttention):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return *super().tensors(generator), normal(generator, 1, 3, LENGTH)

    def build(self, *tensors: Tensor) -> Operator:
        return SoftmaxAttention(*tensors[:2], 0.5, key_bias=tensors[2])


class TestAttentionWithSink(TestSoftmaxAttention):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return *super().tensors(generator), normal(generator, 1, 3)

    def build(self, *tensors: Tensor) -> Operator:
        return SoftmaxAttention(*tensors[:2], 0.5, window=3, sink=tensors[2])


class TestCappedAttention(TestSoftmaxAttention):
    def build(self, *tensors: Tensor) -> Operator:
        return SoftmaxAttention(*tensors[:2], 2.0, soft_cap=1.5)


class TestAttentionWithAllOfThese(TestSoftmaxAttention):
    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return *super().tensors(generator), normal(generator, 2, 1, LENGTH), normal(generator, 1, 3)

    def build(self, *tensors: Tensor) -> Operator:
        return SoftmaxAttention(*tensors[:2], 2.0, key_bias=tensors[2], sink=tensors[3], soft_cap=1.5)


class TestMatrixWithoutGradients(TestDense):
    """What an operator says that cannot be differentiated, such as one from a library without autograd."""

    differentiable = False

    def build(self, *tensors: Tensor) -> Operator:
        return Dense(tensors[0].detach().tril())
