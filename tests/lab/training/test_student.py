"""What a student takes over from its teacher, and what starts anew."""

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.training.student import student_of


def test_all_that_does_not_depend_on_the_state_is_the_teachers(make_model):
    teacher = make_model(layers=2, key_size=4)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = student_of(teacher, 2, torch.Generator().manual_seed(1))
    given, taken = teacher.state_dict(), student.state_dict()
    assert student.config.key_size == 2
    assert {block.mixer.key_size for block in student.blocks} == {2}
    for name, tensor in taken.items():
        if tensor.shape == given[name].shape:
            assert torch.equal(tensor, given[name]), name
    for part in ("projection", "convolution"):
        name = f"layers.1.mixer.{part}.weight"
        assert torch.equal(taken[name][-16:], given[name][-16:])
        assert not torch.equal(taken[name][:8], given[name][:8])
    with torch.no_grad():
        student.embedding.weight.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_values_of_both_are_the_same(make_model):
    teacher = make_model(key_size=4)
    student = student_of(teacher, 2)
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.blocks[0].mixer.values(hidden), student.blocks[0].mixer.values(hidden))


@pytest.mark.parametrize("mixer", ["sa", "la", "gla", "s6", "gla,sa"])
def test_a_size_for_each_layer(mixer, make_model):
    teacher = make_model(mixer, layers=2, key_size=4)
    student = student_of(teacher, (3, 2))
    assert [block.mixer.key_size for block in student.blocks] == [3, 2]
    assert student(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 7)
    assert student_of(teacher.double(), (3, 2)).embedding.weight.dtype == torch.float64


def test_a_student_of_another_mixer_keeps_all_but_the_mixing(make_model):
    teacher = make_model("sa", layers=2, key_size=8)
    student = student_of(teacher, [2, 4], torch.Generator().manual_seed(0), mixer="gla")
    assert student.config.mixer == "gla"
    assert [block.mixer.kind for block in student.blocks] == ["gla", "gla"]
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.blocks[0].mixer.values(hidden), student.blocks[0].mixer.values(hidden))
    assert torch.equal(teacher.embedding.weight, student.embedding.weight)
    with pytest.raises(InputError, match="mixer must be"):
        student_of(teacher, 2, mixer="none")


def test_a_student_of_equal_size_starts_as_its_teacher(make_model):
    teacher = make_model(key_size=4)
    ids = torch.arange(5)[None]
    assert torch.equal(student_of(teacher, 4)(ids), teacher(ids))


def test_sizes_that_do_not_fit(make_model):
    with pytest.raises(InputError, match=r"key_sizes must be one for each of 2 layers, got \[1, 2, 3\]"):
        student_of(make_model(layers=2), [1, 2, 3])
    with pytest.raises(InputError, match=r"key_size must be .*got 0"):
        student_of(make_model(), 0)
