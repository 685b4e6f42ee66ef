"""The error of operators and its gradients against the definition."""

import pytest
import torch

from statesize.lab.training.distillation import operator_error
from statesize.operators import Convolution, Dense, Recurrence, SoftmaxAttention

LENGTH = 23


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gated(states, seed, decay=(0.9, 1.0), skip=False):
    A = random(2, 3, LENGTH, states, seed=seed).sigmoid() * (decay[1] - decay[0]) + decay[0]
    B, C = random(2, 3, LENGTH, states, seed=seed + 1), random(2, 3, LENGTH, states, seed=seed + 2)
    return Recurrence(A, B, C, random(2, 3, LENGTH, seed=seed + 3) if skip else None)


def delta(seed):
    key = torch.nn.functional.normalize(random(2, 3, LENGTH, 4, seed=seed), dim=-1)
    ones = torch.ones(2, 3, LENGTH, dtype=torch.float64)
    return Recurrence.delta_rule(key, 0.5 * ones, random(2, 3, LENGTH, 4, seed=seed + 1), ones)


OPERATORS = {
    "gated": gated(4, 0),
    "gated with a feed-through": gated(4, 5, skip=True),
    "one feed-through": Recurrence(gated(4, 5).A, gated(4, 5).B, gated(4, 5).C, random(2, 3, 1, seed=9)),
    "strong decays": gated(4, 10, decay=(0.0, 0.1)),
    "signs": gated(4, 15, decay=(-1.0, 1.0)),
    "delta rule": delta(20),
    "attention": SoftmaxAttention(random(2, 3, LENGTH, 4, seed=30), random(2, 3, LENGTH, 4, seed=31), scale=0.5),
    "convolution": Convolution(random(2, 3, 7, seed=32), LENGTH),
    "dense": Dense(random(2, 3, LENGTH, LENGTH, seed=33).tril()),
}


@pytest.mark.few(27)
@pytest.mark.parametrize("teacher", OPERATORS)
@pytest.mark.parametrize("student", OPERATORS)
def test_operator_error_is_the_relative_frobenius_norm(teacher, student):
    T, S = OPERATORS[teacher], OPERATORS[student]
    expected = (T.dense() - S.dense()).norm(dim=(-2, -1)) / T.dense().norm(dim=(-2, -1))
    torch.testing.assert_close(operator_error(T, S), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("decay", [(0.9, 1.0), (0.0, 0.1)])
def test_gradients_are_those_of_the_definition(decay):
    teacher, student = OPERATORS["attention"], gated(3, 40, decay)
    parts = [part.clone().requires_grad_() for part in (student.A, student.B, student.C)]
    student = Recurrence(*parts)
    found = torch.autograd.grad(operator_error(teacher, student).sum(), parts)
    T = teacher.dense()
    expected = torch.autograd.grad(
        ((T - student.dense()).norm(dim=(-2, -1)) / T.norm(dim=(-2, -1))).sum(), parts, retain_graph=True
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_perfect_student_has_no_error_and_a_gradient_of_zero():
    student = gated(3, 50)
    parts = [part.clone().requires_grad_() for part in (student.A, student.B, student.C)]
    error = operator_error(student, Recurrence(*parts))
    assert float(error.detach().max()) < 1e-14
    assert all(bool((part == 0).all()) for part in torch.autograd.grad(error.sum(), parts))
