"""Every operator that statesize has passes the contract that it offers to others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from statesize.operators import (
    Convolution,
    Dense,
    Derivative,
    Operator,
    Recurrence,
    SoftmaxAttention,
    StateSpace,
)
from statesize.operators.stepped import DelayedRecurrence
from statesize.testing import OperatorContract

LENGTH, STATES = 7, 3
Draw = Callable[..., Tensor]


def vectors(x: Draw, count: int) -> list[Tensor]:
    return [x(2, 3, LENGTH, STATES) for _ in range(count)]


def modes(x: Draw, *sizes: int) -> Tensor:
    return torch.complex(x(*sizes), x(*sizes)) / 3


def attention(**options: object) -> Callable[..., Operator]:
    return lambda query, key: SoftmaxAttention(query, key, 0.5, **options)


def heads(x: Draw) -> tuple[Tensor, Tensor]:
    return x(2, 3, LENGTH, 4), x(2, 1, LENGTH, 4)


# Random tensors, and the operator of them.
CASES: dict[str, tuple[Callable[[Draw], tuple[Tensor, ...]], Callable[..., Operator]]] = {
    "dense": (lambda x: (x(2, 3, LENGTH, LENGTH),), lambda T: Dense(T.tril())),
    "scalar": (lambda x: (x(2, 1, LENGTH, 1).sigmoid(), *vectors(x, 2)), Recurrence),
    "diagonal": (lambda x: (x(2, 1, LENGTH, STATES).sigmoid(), *vectors(x, 2)), Recurrence),
    "full": (lambda x: (x(2, 1, LENGTH, STATES, STATES).sigmoid(), *vectors(x, 2)), Recurrence),
    "fed through": (lambda x: (x(2, 1, LENGTH, STATES).sigmoid(), *vectors(x, 2), x(1, 3, 1)), Recurrence),
    "fed by position": (lambda x: (x(2, 1, LENGTH, 1).sigmoid(), *vectors(x, 2), x(2, 1, LENGTH)), Recurrence),
    "complex": (lambda x: (modes(x, 2, LENGTH, STATES), modes(x, 2, LENGTH, STATES), x(1, LENGTH, STATES)), Recurrence),
    "complex full": (
        lambda x: (modes(x, 2, LENGTH, STATES, STATES), x(2, LENGTH, STATES), x(2, LENGTH, STATES)),
        Recurrence,
    ),
    "delta": (
        lambda x: (x(2, 3, LENGTH, STATES) / 2, x(2, 3, LENGTH).sigmoid(), *vectors(x, 1), x(2, 1, LENGTH).sigmoid()),
        Recurrence.delta_rule,
    ),
    "delta by dimension": (
        lambda x: (x(2, 3, LENGTH, STATES) / 2, x(2, 3, LENGTH).sigmoid(), *(part.sigmoid() for part in vectors(x, 2))),
        Recurrence.delta_rule,
    ),
    "rank one": (
        lambda x: (x(2, 1, LENGTH, STATES).sigmoid(), *(part / 2 for part in vectors(x, 2)), *vectors(x, 2)),
        Recurrence.diagonal_plus_rank_one,
    ),
    "delayed": (lambda x: (0.8 * x(2, 3, LENGTH, STATES), *vectors(x, 2), x(2, 3, LENGTH)), DelayedRecurrence),
    "delayed full": (lambda x: (x(2, 3, LENGTH, STATES, STATES) / 2, *vectors(x, 2), x(2, 3, 1)), DelayedRecurrence),
    "convolution": (lambda x: (x(2, 3, 4),), lambda kernel: Convolution(kernel, LENGTH)),
    "longer kernel": (lambda x: (x(2, 3, LENGTH + 3),), lambda kernel: Convolution(kernel, LENGTH)),
    "attention": (heads, attention()),
    "window": (heads, attention(window=3)),
    "capped": (heads, attention(soft_cap=1.5)),
    "biased": (
        lambda x: (*heads(x), x(1, 3, LENGTH)),
        lambda q, k, bias: SoftmaxAttention(q, k, 0.5, key_bias=bias),
    ),
    "sink": (
        lambda x: (*heads(x), x(2, 1, LENGTH), x(1, 3)),
        lambda q, k, bias, sink: SoftmaxAttention(q, k, 2.0, 3, key_bias=bias, sink=sink, soft_cap=1.5),
    ),
    "state space": (
        lambda x: (x(2, 3, 3) / 2, x(1, 3, 1), x(2, 1, 3), x(1, 1, 1)),
        lambda *parts: StateSpace(*parts, length=9),
    ),
    "state space by step": (lambda x: (x(2, 7, 2, 2) / 2, x(2, 7, 2, 1), x(1, 7, 1, 2)), StateSpace),
    "derivative": (lambda x: (x(2, 9, 1),), lambda x: Derivative(lambda inputs: inputs.cumsum(-2).sin() + inputs, x)),
}


class TestEveryOperator(OperatorContract):
    @pytest.fixture(autouse=True, params=CASES)
    def named(self, request: pytest.FixtureRequest) -> None:
        self.draw, self.make = CASES[request.param]
        self.differentiable = request.param != "derivative"

    def tensors(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return self.draw(lambda *sizes: torch.randn(*sizes, generator=generator, dtype=torch.float64))

    def build(self, *tensors: Tensor) -> Operator:
        return self.make(*tensors)
