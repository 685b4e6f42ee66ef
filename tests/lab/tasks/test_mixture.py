"""Several tasks at once."""

import dataclasses

import pytest
import safetensors.torch
import torch

from statesize.errors import FileError, InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import IGNORED, MQAR, Mixture, build_task, from_arrays, read_arrays, task_settings
from statesize.lab.training import TrainingConfig, evaluate, train_in_memory

SMALL, LARGE = MQAR(2, 8, 12, held_out_sequences=6), MQAR(3, 14, 12, held_out_sequences=10)
BOTH = Mixture((SMALL, LARGE))


def model_of(vocabulary=12):
    return LanguageModel(ModelConfig("la", vocabulary, width=8, heads=2, layers=1), torch.Generator().manual_seed(0))


def test_batches_are_of_one_part_and_all_parts_come():
    generator = torch.Generator().manual_seed(0)
    lengths = [BOTH.sample(3, generator)[0].shape[1] for _ in range(200)]
    assert set(lengths) == {8, 14}
    assert 70 < lengths.count(8) < 130
    assert [inputs.shape[1] for inputs, _ in BOTH.held_out(6)] == [8, 14, 14]
    assert (BOTH.vocabulary_size, BOTH.length, BOTH.items, BOTH.held_out_sequences) == (12, 14, 3, 16)
    # 6 · 4 targets with a chance of 1/2 and 10 · 8 with one of 1/3.
    assert BOTH.chance == pytest.approx((24 / 2 + 80 / 3) / 104)


def test_each_part_has_its_accuracy():
    found = evaluate(model_of(), BOTH, 4)
    small, large = (evaluate(model_of(), part, 4) for part in BOTH.parts)
    assert found["accuracy_MQAR_L8_kv2"] == small["accuracy"]
    assert found["accuracy_MQAR_L14_kv3"] == large["accuracy"]
    assert found["accuracy"] == pytest.approx((24 * small["accuracy"] + 80 * large["accuracy"]) / 104)
    assert found["loss"] == pytest.approx((24 * small["loss"] + 80 * large["loss"]) / 104)
    again = Mixture((SMALL, dataclasses.replace(SMALL, gap_power=0.5), MQAR(2, 80, 12)))
    assert list(again.slices) == ["MQAR_L8_kv2", "MQAR_L8_kv2_2", "MQAR_L80_kv2"]


def test_a_model_trains_on_it():
    *_, last = train_in_memory(model_of(), BOTH, TrainingConfig(steps=5, batch_size=4))
    assert last.step == 5


def test_accuracy_of_whole_sequences():
    """A model that answers 1 everywhere."""
    model = model_of(4)
    with torch.no_grad():
        model.norm.weight.zero_()
        model.embedding.weight[1] += 1
    model.forward = lambda inputs, asked=None: torch.nn.functional.one_hot(torch.ones_like(inputs), 4).float()
    inputs = torch.tensor([[0, 0, 0], [2, 2, 2], [2, 0, 2], [0, 2, 2]])
    targets = torch.tensor([[1, IGNORED, 1], [1, 3, 1], [IGNORED, IGNORED, IGNORED], [1, 1, 1]])
    found = evaluate(model, from_arrays(inputs, targets, 3), 2)
    assert found["accuracy"] == 5 / 6
    assert found["sequence_accuracy"] == 1 / 2


def test_logits_of_asked_positions_only_give_the_same(monkeypatch):
    from statesize.lab.training import step

    def trained():
        model = model_of()
        losses = [record.loss for record in train_in_memory(model, SMALL, TrainingConfig(steps=3, batch_size=4))]
        return torch.tensor([*losses, *evaluate(model, SMALL, 4).values()])

    before = trained()
    monkeypatch.setattr(step, "_MOST_LOGITS", 0)
    assert torch.allclose(trained(), before, atol=1e-5)


def test_arrays_in_a_file(tmp_path):
    inputs, targets = SMALL.sample(20, torch.Generator().manual_seed(0))
    path = tmp_path / "arrays.safetensors"
    safetensors.torch.save_file({"inputs": inputs, "targets": targets}, path)
    task = build_task({"name": "arrays", "file": str(path), "held_out_sequences": 5})
    assert torch.equal(next(task.held_out(9))[0], inputs[15:])
    assert (task.length, task.items, task.held_out_sequences, task.training_sequences) == (8, 4, 5, 15)
    settings = task_settings(Mixture((task, LARGE)))
    again, large = build_task(settings).parts
    assert task_settings(again) == task_settings(task) == settings["parts"][0]
    assert torch.equal(again.targets, targets)
    assert large == LARGE
    safetensors.torch.save_file({"inputs": inputs, "targets": targets.roll(1, 0)}, path)
    with pytest.raises(FileError, match=r"must have the SHA-256 .* changed since"):
        build_task(settings)


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    path = tmp_path / "arrays.safetensors"
    with pytest.raises(FileError, match="file must be one that can be read"):
        read_arrays(path)
    path.write_bytes(b"none" * 40)
    with pytest.raises(FileError):
        read_arrays(path)
    safetensors.torch.save_file({"inputs": torch.zeros(2, 3, dtype=torch.int64)}, path)
    with pytest.raises(InputError, match="must hold inputs and targets, got inputs"):
        read_arrays(path)
    with pytest.raises(InputError, match="arrays must be read from a file"):
        task_settings(from_arrays(*SMALL.sample(4, torch.Generator().manual_seed(0))))
    with pytest.raises(InputError, match="held_out_sequences must be below 4"):
        from_arrays(*SMALL.sample(4, torch.Generator().manual_seed(0)), held_out_sequences=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mixture"}, "mixture must be a list of tasks, parts"),
        ({"name": "mixture", "parts": []}, "parts must be at least one task"),
        ({"name": "mixture", "parts": [{"name": "mqar"}], "length": 8}, "mixture must be a list of tasks"),
        ({"name": "mixture", "parts": [{"name": "mqr"}]}, "task name must be one of"),
        ({"name": "arrays", "path": "x"}, "got .path."),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build_task(settings)


def test_answers_that_stand_in_the_input_warn():
    compression = build_task({"name": "compression", "mad": True, "held_out_sequences": 2})
    with pytest.warns(UserWarning, match="answers of Compression stand in its input") as caught:
        list(train_in_memory(model_of(16), compression, TrainingConfig(steps=1, batch_size=2)))
    assert len(caught) == 1
