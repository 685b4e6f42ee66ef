"""Students learn each of the three things; teachers stay as they are."""

import dataclasses

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.mixers import mixer as mixers
from statesize.lab.tasks import MQAR
from statesize.lab.training import DivergenceError, TrainingConfig
from statesize.lab.training.distillation import LOSSES, discrepancy, distil, operator_error, student_of

CONFIG = TrainingConfig(steps=25, batch_size=8, rate=1e-2, weight_decay=0.0)


@pytest.fixture
def task():
    return MQAR(pairs=2, length=12, vocabulary_size=8, held_out_sequences=16)


@pytest.fixture
def teacher(make_model):
    return make_model(vocabulary_size=8, layers=2, key_size=4, dropout=0.1)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_falls_and_with_it_its_distance_on_held_out_data(loss, teacher, task):
    student = student_of(teacher, 2, torch.Generator().manual_seed(1))
    before = discrepancy(teacher, student, task, 8)
    records = list(distil(teacher, student, task, CONFIG, (loss,)))
    after = discrepancy(teacher, student, task, 8)
    assert [record.step for record in records] == list(range(1, 26))
    assert records[-1].loss < 0.9 * records[0].loss
    if loss == "logits":
        assert after.divergence < 0.8 * before.divergence
    elif loss == "operators":
        assert all(one < 0.9 * other for one, other in zip(after.operators, before.operators, strict=True))


def test_the_discrepancy_is_the_mean_of_the_distances(teacher, task):
    student = student_of(teacher, 2, torch.Generator().manual_seed(1))
    found = discrepancy(teacher, student, task, 16)
    input_ids, targets = next(task.held_out(16))
    kept, teacher = [], teacher.eval()
    hook = teacher.blocks[1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        p, q = (model(input_ids).double().softmax(-1)[targets != -100] for model in (teacher, student.eval()))
        hidden = teacher.blocks[1].mixer_norm(kept[0])
        theirs, ours = (model.blocks[1].mixer.operator(hidden) for model in (teacher, student))
    hook.remove()
    assert found.operators[1] == pytest.approx(float(operator_error(theirs, ours).mean()))
    assert found.divergence == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    again = discrepancy(teacher, student, task, 5)
    assert (again.divergence, *again.operators) == pytest.approx((found.divergence, *found.operators))


def test_the_teacher_and_all_modes_are_left_as_found(teacher, task):
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    state = torch.get_rng_state()
    student = student_of(teacher, 2, torch.Generator().manual_seed(1))
    list(distil(teacher, student, task, dataclasses.replace(CONFIG, steps=2)))
    discrepancy(teacher, student, task, 8)
    assert teacher.training
    assert student.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit_is_refused(teacher, task, monkeypatch):
    with pytest.raises(InputError, match=r"key_size must be .*got 0"):
        student_of(teacher, 0)
    ignored = (torch.zeros(2, 12, dtype=torch.long), torch.full((2, 12), -100))
    with monkeypatch.context() as patch:
        patch.setattr(MQAR, "held_out", lambda task, batch_size: iter([ignored]))
        with pytest.raises(InputError, match="held-out data have no target"):
            discrepancy(teacher, student_of(teacher, 2), task, 8)
    with pytest.raises(DivergenceError, match="lower learning rate"):
        list(distil(teacher, student_of(teacher, 2), task, dataclasses.replace(CONFIG, rate=1e30)))


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
    with torch.no_grad():
        student.embedding.weight.zero_()
    assert teacher.embedding.weight.any()
