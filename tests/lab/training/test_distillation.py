"""Students learn each of the three things; teachers stay as they are; errors of operators are their definition."""

import dataclasses

import pytest
import torch
from oracles.draws import normal

from statesize.errors import InputError
from statesize.lab.mixers import mixer as mixers
from statesize.lab.tasks import MQAR
from statesize.lab.training import DivergenceError, TrainingConfig
from statesize.lab.training.distillation import LOSSES, discrepancy, distil, operator_error, student_of
from statesize.operators import Convolution, Dense, Recurrence, SoftmaxAttention

CONFIG = TrainingConfig(steps=25, batch_size=8, rate=1e-2, weight_decay=0.0)
TASK = MQAR(pairs=2, length=12, vocabulary_size=8, held_out_sequences=16)
LENGTH = 23


@pytest.fixture
def teacher(make_model):
    return make_model(vocabulary_size=8, layers=2, key_size=4, dropout=0.1)


@pytest.fixture
def student(teacher):
    return student_of(teacher, 2, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_falls_and_with_it_its_distance_on_held_out_data(loss, teacher, student):
    before = discrepancy(teacher, student, TASK, 8)
    records = list(distil(teacher, student, TASK, CONFIG, (loss,)))
    after = discrepancy(teacher, student, TASK, 8)
    assert [record.step for record in records] == list(range(1, 26))
    assert records[-1].loss < 0.9 * records[0].loss
    if loss == "logits":
        assert after.divergence < 0.8 * before.divergence
    elif loss == "operators":
        assert all(one < 0.9 * other for one, other in zip(after.operators, before.operators, strict=True))


def test_the_discrepancy_is_the_mean_of_the_distances(teacher, student):
    found = discrepancy(teacher, student, TASK, 16)
    input_ids, targets = next(TASK.held_out(16))
    kept, teacher = [], teacher.eval()
    hook = teacher.blocks[1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        p, q = (model(input_ids).double().softmax(-1)[targets != -100] for model in (teacher, student.eval()))
        hidden = teacher.blocks[1].mixer_norm(kept[0])
        theirs, ours = (model.blocks[1].mixer.operator(hidden) for model in (teacher, student))
    hook.remove()
    assert found.operators[1] == pytest.approx(float(operator_error(theirs, ours).mean()))
    assert found.divergence == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    again = discrepancy(teacher, student, TASK, 5)
    assert (again.divergence, *again.operators) == pytest.approx((found.divergence, *found.operators))


def test_the_teacher_and_all_modes_are_left_as_found(teacher, student):
    before, state = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}, torch.get_rng_state()
    list(distil(teacher, student, TASK, dataclasses.replace(CONFIG, steps=2)))
    discrepancy(teacher, student, TASK, 8)
    assert (teacher.training, student.training) == (True, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit_is_refused(teacher, student, monkeypatch):
    with pytest.raises(DivergenceError):
        list(distil(teacher, student, TASK, dataclasses.replace(CONFIG, rate=1e30)))
    ignored = (torch.zeros(2, 12, dtype=torch.long), torch.full((2, 12), -100))
    monkeypatch.setattr(MQAR, "held_out", lambda task, batch_size: iter([ignored]))
    with pytest.raises(InputError):
        discrepancy(teacher, student_of(teacher, 2), TASK, 8)


@pytest.mark.few(3)
@pytest.mark.parametrize("mixer", mixers.names())
@pytest.mark.parametrize("size", [2, 4])
def test_all_that_does_not_depend_on_the_state_is_the_teachers(mixer, size, make_model):
    teacher = make_model(mixer, layers=2, key_size=4)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    student = student_of(teacher, size, torch.Generator().manual_seed(1))
    given, taken = teacher.state_dict(), student.state_dict()
    assert {block.mixer.key_size for block in student.blocks} == {size}
    assert all(torch.equal(taken[name], given[name]) for name in taken if taken[name].shape == given[name].shape)
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(student.blocks[0].mixer.values(hidden), teacher.blocks[0].mixer.values(hidden))
    if size == 4:
        assert torch.equal(student(torch.arange(5)[None]), teacher(torch.arange(5)[None]))
    student.embedding.weight.data.zero_()
    assert teacher.embedding.weight.any()


def gated(states, seed, decay=(0.9, 1.0), skip=None):
    A = normal(2, 3, LENGTH, states, seed=seed).sigmoid() * (decay[1] - decay[0]) + decay[0]
    B, C = normal(2, 3, LENGTH, states, seed=seed + 1), normal(2, 3, LENGTH, states, seed=seed + 2)
    return Recurrence(A, B, C, normal(2, 3, skip, seed=seed + 3) if skip else None)


ONES = torch.ones(2, 3, LENGTH, dtype=torch.float64)
KEY = torch.nn.functional.normalize(normal(2, 3, LENGTH, 4, seed=20), dim=-1)
OPERATORS = {
    "gated": gated(4, 0),
    "gated with a feed-through": gated(4, 5, skip=LENGTH),
    "one feed-through": gated(4, 5, skip=1),
    "strong decays": gated(4, 10, decay=(0.0, 0.1)),
    "signs": gated(4, 15, decay=(-1.0, 1.0)),
    "delta rule": Recurrence.delta_rule(KEY, 0.5 * ONES, normal(2, 3, LENGTH, 4, seed=21), ONES),
    "attention": SoftmaxAttention(normal(2, 3, LENGTH, 4, seed=30), normal(2, 3, LENGTH, 4, seed=31), scale=0.5),
    "convolution": Convolution(normal(2, 3, 7, seed=32), LENGTH),
    "dense": Dense(normal(2, 3, LENGTH, LENGTH, seed=33).tril()),
}


@pytest.mark.parametrize("teacher", OPERATORS)
def test_operator_error_and_its_gradients_are_those_of_the_definition(teacher):
    T = OPERATORS[teacher].dense()
    for student in OPERATORS.values():
        expected = (T - student.dense()).norm(dim=(-2, -1)) / T.norm(dim=(-2, -1))
        torch.testing.assert_close(operator_error(OPERATORS[teacher], student), expected, rtol=1e-10, atol=1e-12)
    for decay in ((0.9, 1.0), (0.0, 0.1)):
        student = gated(3, 40, decay)
        parts = [part.clone().requires_grad_() for part in (student.A, student.B, student.C)]
        student = Recurrence(*parts)
        expected = (T - student.dense()).norm(dim=(-2, -1)) / T.norm(dim=(-2, -1))
        gradients = (
            torch.autograd.grad(e.sum(), parts) for e in (operator_error(OPERATORS[teacher], student), expected)
        )
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_perfect_student_has_no_error_and_a_gradient_of_zero():
    student = gated(3, 50)
    parts = [part.clone().requires_grad_() for part in (student.A, student.B, student.C)]
    error = operator_error(student, Recurrence(*parts))
    assert float(error.detach().max()) < 1e-14
    assert all(bool((part == 0).all()) for part in torch.autograd.grad(error.sum(), parts))
