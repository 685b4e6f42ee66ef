"""What operators cannot be made of is refused by the name of the argument."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.operators import BlockDense, Convolution, Dense, Derivative, Recurrence, SoftmaxAttention, StateSpace
from statesize.operators.stepped import DelayedRecurrence, Stepped

ONES = torch.ones(4, 2)
RECURRENCE = dict.fromkeys("ABC", ONES)
GOOD = {
    Dense: {"matrix": torch.eye(3)},
    BlockDense: {"matrix": torch.eye(3)[:, None, :, None]},
    Recurrence: RECURRENCE,
    DelayedRecurrence: RECURRENCE | {"D": torch.ones(4)},
    Recurrence.delta_rule: {"key": ONES, "beta": torch.ones(4), "query": ONES, "decay": torch.ones(4)},
    Recurrence.diagonal_plus_rank_one: dict.fromkeys(("decay", "column", "row", "B", "C"), ONES),
    Convolution: {"kernel": torch.ones(2), "length": 3},
    SoftmaxAttention: {"query": ONES, "key": ONES, "scale": 1.0},
    StateSpace: {"A": torch.eye(2), "B": ONES[:2, :1], "C": ONES[:1], "length": 4},
    Derivative: {"function": lambda inputs: inputs.cumsum(-2), "point": torch.ones(4, 2, dtype=torch.float64)},
    Stepped: {"recurrence": Recurrence(*[ONES * (torch.arange(4) % 2)[:, None]] * 3), "steps": 2},
}
BAD = [
    (Dense, "matrix", [torch.ones(3, 3), torch.ones(2, 3), torch.ones(3), torch.ones(0, 0), torch.eye(3).int(), "T"]),
    (Dense, "matrix", [torch.eye(3, dtype=torch.complex64), torch.diag(torch.tensor([1.0, torch.nan]))]),
    (Dense, "state_size", [torch.tensor([0, 1]), torch.tensor(5), torch.zeros(3), torch.tensor([0, -1, 2])]),
    (BlockDense, "matrix", [torch.ones(3, 1, 3, 1), torch.ones(3, 1, 2, 1), torch.eye(3)]),
    (
        Recurrence,
        "A",
        [torch.ones(4, 3), torch.ones(5, 2), torch.ones(4, 2, 3), [[1.0]], torch.full((4, 1), torch.inf)],
    ),
    (Recurrence, "A", [torch.ones(4, 1, dtype=torch.int64), torch.ones(1, 4, 1, 2, 2)]),
    (Recurrence, "B", [torch.ones(4), torch.ones(4, 0), torch.ones(0, 2), ONES * torch.nan]),
    (Recurrence, "C", [torch.ones(4, 3), torch.ones(3, 2)]),
    (Recurrence, "D", [torch.ones(3), torch.ones(4, dtype=torch.complex64)]),
    (DelayedRecurrence, "A", [torch.ones(4, 3), torch.ones(4), ONES.to(torch.complex64)]),
    (Recurrence.delta_rule, "beta", [torch.ones(3)]),
    (Recurrence.delta_rule, "decay", [torch.ones(4, 3), torch.ones(3)]),
    (Recurrence.delta_rule, "query", [torch.ones(4, 3)]),
    (Recurrence.delta_rule, "key", [torch.full((4, 2), torch.nan), torch.ones(4, 2, dtype=torch.complex64)]),
    (Recurrence.diagonal_plus_rank_one, "decay", [torch.ones(4, 3)]),
    (Recurrence.diagonal_plus_rank_one, "column", [torch.ones(4, 1), torch.ones(4, 2, dtype=torch.int64)]),
    (Recurrence.diagonal_plus_rank_one, "row", [torch.ones(3, 2), torch.full((4, 2), torch.nan)]),
    (Convolution, "kernel", [torch.tensor(1.0), torch.ones(0), torch.tensor([1.0, torch.inf]), torch.ones(2).int()]),
    (Convolution, "length", [0, 10**30, 2.0, True]),
    (SoftmaxAttention, "key", [torch.ones(3, 2), torch.ones(4, 2, dtype=torch.float64)]),
    (SoftmaxAttention, "query", [torch.ones(4), torch.ones(4, 2).int(), torch.full((4, 2), torch.nan)]),
    (SoftmaxAttention, "scale", [math.nan, None, 10**400]),
    (SoftmaxAttention, "window", [0, 2.5]),
    (
        SoftmaxAttention,
        "key_bias",
        [torch.ones(2), torch.ones(()), torch.full((4,), -torch.inf), torch.ones(4).double()],
    ),
    (SoftmaxAttention, "sink", [1.0, torch.tensor(torch.inf)]),
    (SoftmaxAttention, "soft_cap", [0.0]),
    (StateSpace, "A", [torch.ones(2, 3), torch.ones(2)]),
    (StateSpace, "B", [torch.ones(2, 0), torch.ones(3, 1)]),
    (StateSpace, "length", [0, 1.5]),
    (Derivative, "point", [torch.ones(4), torch.ones(4, 2, dtype=torch.float16)]),
    (Derivative, "function", [lambda inputs: inputs.cumsum(-2)[..., 1:, :], lambda inputs: inputs.cumsum(-2) / 0]),
    (Stepped, "steps", [3]),
    (Stepped, "recurrence", [Recurrence(ONES, ONES, ONES)]),
]
CASES = [(make, name, value) for make, name, values in BAD for value in values]


@pytest.mark.parametrize(
    ("make", "name", "value"), CASES, ids=lambda value: getattr(value, "__name__", str(value)[:30])
)
def test_what_does_not_fit_is_refused(make, name, value):
    make(**GOOD[make])
    # Whichever of two arguments that do not fit each other may be named.
    named = {"steps": "recurrence", "query": "(query|key)"}.get(name, name)
    with pytest.raises(InputError, match=rf"^{named}\b.* must "):
        make(**(GOOD[make] | {name: value}))


@pytest.mark.parametrize("make", [Recurrence, partial(SoftmaxAttention, scale=1.0)])
def test_batches_that_do_not_broadcast_are_refused(make):
    parts = [torch.ones(3, 4, 2), torch.ones(2, 4, 2), torch.ones(3, 4, 2)]
    count = 3 if make is Recurrence else 2
    for given in (parts, [torch.ones(4, 2), *parts[1:]]):
        with pytest.raises(InputError):
            make(*given[:count])


@pytest.mark.parametrize("index", [(0, 0), 2, np.int64(2), None, True])
def test_indices_beside_the_batch_are_refused(index):
    with pytest.raises(InputError):
        Recurrence(torch.ones(2, 4, 1), torch.ones(2, 4, 3), torch.ones(1, 4, 3))[index]


def test_what_overflows_in_a_narrower_dtype_is_refused():
    large = Recurrence(torch.ones(4, 1), torch.full((4, 2), 1e200, dtype=torch.float64), torch.ones(4, 2))
    with pytest.raises(InputError):
        large.to(torch.float32)
