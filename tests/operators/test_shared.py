"""Several readouts of one input: every kind of operator passes the contract that statesize offers to others."""

import pytest
import torch
from torch import Tensor

import statesize as ss
from statesize.operators import Convolution, Dense, Operator, Recurrence, Shared, SoftmaxAttention
from statesize.operators.stepped import DelayedRecurrence
from statesize.testing import SharedContract

LENGTH, STATES, READOUTS = 9, 3, 3


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestDense(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        return Dense(normal(generator, 2, READOUTS, LENGTH, LENGTH).tril())


class TestOneReadout(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        return Dense(normal(generator, 2, 1, LENGTH, LENGTH).tril())


class TestAttention(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        return SoftmaxAttention(normal(generator, 2, 5, LENGTH, 4), normal(generator, 2, 1, LENGTH, 4), 0.5)


class TestConvolution(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        return Convolution(normal(generator, 2, READOUTS, 4), LENGTH)


class TestScalarRecurrence(SharedContract):
    decay_shape: tuple[int, ...] = (1,)

    def build(self, generator: torch.Generator) -> Operator:
        decay = normal(generator, 2, 1, LENGTH, *self.decay_shape).sigmoid()
        feed = normal(generator, 2, READOUTS, 1)
        return Recurrence(
            decay, normal(generator, 2, 1, LENGTH, STATES), normal(generator, 2, READOUTS, LENGTH, STATES), feed
        )


class TestDiagonalRecurrence(TestScalarRecurrence):
    decay_shape = (STATES,)


class TestFullRecurrence(TestScalarRecurrence):
    decay_shape = (STATES, STATES)


class TestRepeatedState(SharedContract):
    """As heads are that were expanded before they were measured."""

    def build(self, generator: torch.Generator) -> Operator:
        decay, key = (
            normal(generator, 2, 1, LENGTH, STATES).expand(-1, READOUTS, -1, -1).contiguous() for _ in range(2)
        )
        return Recurrence(decay.sigmoid(), key, normal(generator, 2, READOUTS, LENGTH, STATES))


class TestDifferentStates(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        decay, key, query = (normal(generator, 2, READOUTS, LENGTH, STATES) for _ in range(3))
        return Recurrence(decay.sigmoid(), key, query)


class TestComplexRecurrence(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        modes = torch.polar(normal(generator, 2, 1, LENGTH, STATES).sigmoid(), normal(generator, 2, 1, LENGTH, STATES))
        return Recurrence(
            modes, normal(generator, 2, 1, LENGTH, STATES), normal(generator, 2, READOUTS, LENGTH, STATES)
        )


class TestDeltaRule(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        key, beta = normal(generator, 2, 1, LENGTH, STATES), normal(generator, 2, 1, LENGTH).sigmoid()
        query = normal(generator, 2, READOUTS, LENGTH, STATES)
        return Recurrence.delta_rule(key / 2, beta, query, normal(generator, 2, 1, LENGTH).sigmoid())


class TestDelayedRecurrence(SharedContract):
    def build(self, generator: torch.Generator) -> Operator:
        decay, key = (normal(generator, 2, 1, LENGTH, STATES) for _ in range(2))
        query, feed = normal(generator, 2, READOUTS, LENGTH, STATES), normal(generator, 2, READOUTS, 1)
        return DelayedRecurrence(decay.sigmoid(), key, query, feed)


def test_readouts_of_one_state_are_measured_as_one_recurrence():
    generator = torch.Generator().manual_seed(0)
    key, query = normal(generator, 1, 60, 4), normal(generator, 5, 60, 4)
    heads = Recurrence(torch.ones(1, 60, 1, dtype=torch.float64), key, query)
    joint = ss.measure(Shared(heads), relative_tolerances=(1e-9,))
    assert joint.engine == "small_state"
    # Five heads read a state of four numbers, all of it.
    assert joint.relative_count.amax() == 4
    assert ss.measure(heads, relative_tolerances=(1e-9,)).relative_count[:, 30].sum() == 20
    assert joint.ceiling.tolist() == [1, 2, 3, *[4] * 56]


def test_extreme_scales():
    matrix = normal(torch.Generator().manual_seed(1), 2, 20, 20).tril()
    for scale in (1e-200, 1e200):
        found = ss.measure(Shared(Dense(matrix * scale)), engine="all_cuts")
        expected = ss.measure(Shared(Dense(matrix)), engine="dense").entropy
        torch.testing.assert_close(found.entropy, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.eye(3), "must be a statesize Operator of readouts, got Tensor"),
        (Dense(torch.eye(3)), r"must have its readouts as its last batch dimension, got batch shape \(\)"),
        (Dense(torch.eye(3)[None][:0]), r"got batch shape \(0,\)"),
        (Shared(Dense(torch.eye(3)[None])), "got Shared"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ss.errors.InputError, match=message):
        Shared(given)


def test_what_takes_one_readout_says_so():
    shared = Shared(Dense(torch.eye(5)[None]))
    with pytest.raises(ss.errors.InputError, match="operator must have one readout and one input, got Shared"):
        ss.metrics.differentiable_entropy(shared)
    with pytest.raises(ss.errors.InputError, match=r"reduce|Convolution or a Recurrence|got Shared"):
        ss.reduce(shared, state_size=1)
    assert ss.metrics.hankel_singular_values(shared).shape == (4, 2)
