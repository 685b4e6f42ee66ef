"""Several readouts of one input, against the stack of their blocks."""

import pytest
import torch
from oracles.draws import normal
from torch import Tensor

import statesize as ss
from statesize.operators import BlockDense, Convolution, Dense, Recurrence, Shared, SoftmaxAttention
from statesize.operators.stepped import DelayedRecurrence, Stepped
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ORDER, with_readouts
from statesize.testing import compare_with_definition

LENGTH, STATES, READOUTS = 9, 3, 3


def vectors(heads: int = 1, seed: int = 0) -> Tensor:
    return normal(2, heads, LENGTH, STATES, seed=seed)


DECAY, KEY, QUERY = vectors().sigmoid(), vectors(seed=1), vectors(READOUTS, seed=2)
FEED = normal(2, READOUTS, 1, seed=3)
# Readouts with one state, and those that each have a state of their own.
ONE_STATE = {
    "scalar": Recurrence(DECAY[..., :1], KEY, QUERY, FEED),
    "diagonal": Recurrence(DECAY, KEY, QUERY),
    "full": Recurrence(normal(2, 1, LENGTH, STATES, STATES) / 2, KEY, QUERY),
    # As heads are that were expanded before they were measured.
    "repeated": Recurrence(*(part.expand_as(QUERY).contiguous() for part in (DECAY, KEY)), QUERY),
    "complex": Recurrence(torch.polar(DECAY, vectors(seed=4)), KEY, QUERY),
    "delta": Recurrence.delta_rule(KEY / 2, DECAY[..., 0], QUERY, DECAY[..., 1]),
    "delayed": DelayedRecurrence(DECAY, KEY, QUERY, FEED),
    "state space": ss.StateSpace(normal(2, 1, 2, 2) / 2, normal(2, 1, 2, 1), normal(2, READOUTS, 1, 2), length=LENGTH),
}
OTHERS = {
    "dense": Dense(normal(2, READOUTS, LENGTH, LENGTH).tril()),
    "one readout": Dense(normal(2, 1, LENGTH, LENGTH).tril()),
    "attention": SoftmaxAttention(normal(2, 5, LENGTH, 4), normal(2, 1, LENGTH, 4, seed=1), 0.5),
    "convolution": Convolution(normal(2, READOUTS, 4), LENGTH),
    "other inputs": ss.StateSpace(
        normal(2, 1, 2, 2) / 2, normal(2, READOUTS, 2, 1), normal(2, READOUTS, 1, 2), length=LENGTH
    ),
    "other states": Recurrence(vectors(READOUTS).sigmoid(), vectors(READOUTS, seed=1), QUERY),
}
every_kind = pytest.mark.parametrize("operator", [*ONE_STATE.values(), *OTHERS.values()], ids=[*ONE_STATE, *OTHERS])


@every_kind
def test_it_stacks_its_readouts(operator: ss.Operator) -> None:
    shared = Shared(operator)
    matrix, each = shared.dense(), operator.dense()
    assert (shared.batch_shape, shared.outputs) == (operator.batch_shape[:-1], operator.batch_shape[-1])
    torch.testing.assert_close(matrix, torch.stack(each.unbind(-3), -2))
    torch.testing.assert_close(shared.columns(1, 3), matrix[..., 1:, :, 1:3])
    inputs = normal(2, LENGTH, 2, seed=5)
    torch.testing.assert_close(shared.apply(inputs), torch.einsum("bijk,bkc->bijc", matrix, inputs))
    torch.testing.assert_close(shared[0].dense(), matrix[0])
    torch.testing.assert_close(shared.weighted(inputs[..., 0]).dense(), matrix * inputs[:, None, None, :, 0])
    assert shared.to(torch.float32).dense().dtype == torch.float32


@every_kind
@pytest.mark.parametrize(("past", "future"), [(None, None), (3, 1)])
def test_every_engine_agrees_with_the_definition(operator: ss.Operator, past: int, future: int) -> None:
    held, cut = with_readouts(Shared(operator), make_cut(LENGTH, None, past, future))
    for engine in ORDER:
        if engine.supports(held) and engine.unsupported_reason(held, cut, ()) is None:
            compare_with_definition(engine, held, cut)


@pytest.mark.parametrize("name", ["diagonal", "repeated", "other states", "state space", "other inputs"])
def test_one_state_is_counted_once(name: str) -> None:
    operator = (ONE_STATE | OTHERS)[name]
    alone = operator.state_size()
    assert torch.equal(Shared(operator).state_size(), alone if name in ONE_STATE else READOUTS * alone)


@pytest.mark.parametrize(
    "given",
    [
        *(torch.eye(3), Dense(torch.eye(3)), Dense(torch.eye(3)[None][:0]), Shared(Dense(torch.eye(3)[None]))),
        # Of several inputs or outputs.
        BlockDense(torch.zeros(2, 4, 2, 4, 2)),
        ss.StateSpace(torch.ones(2, 3, 3), torch.ones(2, 3, 2), torch.ones(2, 2, 3), length=4),
        Stepped(Recurrence(torch.ones(2, 8, 1), torch.ones(2, 8, 1), torch.zeros(2, 8, 1)), steps=2),
    ],
)
def test_bad_input(given):
    with pytest.raises(ss.errors.InputError):
        Shared(given)


def test_what_takes_one_readout_says_so():
    one = torch.ones(1, 1, dtype=torch.float64)
    several = ss.StateSpace(one, one, torch.ones(2, 1), length=4)
    for call in (ss.metrics.differentiable_entropy, ss.reduce):
        for operator in (Shared(Dense(torch.eye(5)[None])), several):
            with pytest.raises(ss.errors.InputError, match=f"got {type(operator).__name__}"):
                call(operator)
