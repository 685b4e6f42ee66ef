"""Tasks of ready-made arrays."""

import pytest
import safetensors.torch
import torch

from statesize.errors import FileError, InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import IGNORED, MQAR, build_task, from_arrays, read_arrays, task_settings
from statesize.lab.training import TrainingConfig, evaluate, train, train_in_memory

SMALL = MQAR(2, 8, 12, held_out_sequences=6)


def model_of(vocabulary=12):
    return LanguageModel(ModelConfig("la", vocabulary, width=8, heads=2, layers=1), torch.Generator().manual_seed(0))


def arrays(sequences=40):
    return MQAR(pairs=2, length=8, vocabulary_size=8).sample(sequences, torch.Generator().manual_seed(0))


def test_the_last_tenth_is_held_out_and_never_trained_on():
    inputs, targets = arrays()
    task = from_arrays(inputs, targets)
    held = [torch.cat(parts) for parts in zip(*task.held_out(3), strict=True)]
    assert torch.equal(held[0], inputs[36:])
    assert torch.equal(held[1], targets[36:])
    numbered = torch.arange(40)[:, None].repeat(1, 8)
    drawn, _ = from_arrays(numbered, targets).sample(500, torch.Generator().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == set(range(36))


def test_a_model_trains_on_it(tmp_path):
    model = LanguageModel(ModelConfig("la", 8, width=8, heads=2, layers=1, mlp_factor=0))
    record = train(model, from_arrays(*arrays()), TrainingConfig(steps=2, batch_size=4), tmp_path / "run")
    assert set(record.steps[-1].held_out) == {"loss", "accuracy", "chance", "sequence_accuracy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, t: (i, t.int()), "targets must be of dtype torch.int64, got torch.int32"),
        (lambda i, t: (i.double(), t), "inputs must be of dtype torch.int64"),
        (lambda i, t: (i, t[:, :-1]), r"targets must have shape \(S, L\)"),
        (lambda i, t: (i[:1], t[:1]), "of at least 2"),
        (lambda i, t: (i - 1, t), "inputs must be token ids of at least 0"),
        (lambda i, t: (i, torch.where(t == -100, -1, t)), "targets must be token ids of at least 0"),
        (lambda i, t: (i, torch.full_like(t, -100)), "must score something"),
        (lambda i, t: (i, i), "must not be the tokens at the same positions"),
        (lambda i, t: (i.tolist(), t), "inputs must be a tensor"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        from_arrays(*change(*arrays()))


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
    settings = task_settings(task)
    again = build_task(settings)
    assert task_settings(again) == settings
    assert torch.equal(again.targets, targets)
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
        ({"name": "arrays", "path": "x"}, "got .path."),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build_task(settings)
