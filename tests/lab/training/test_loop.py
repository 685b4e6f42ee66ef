"""The training loop and its folder: learning, resuming bit for bit, interruption, bad runs."""

import dataclasses
import json
import math
import re

import pytest
import torch

from statesize.errors import FileError, InputError
from statesize.lab.mixers import load_checkpoint
from statesize.lab.training import DivergenceError, RunFolder, TrainingConfig, evaluate, train

CONFIG = TrainingConfig(steps=12, batch_size=4, rate=1e-2, evaluate_every=4, checkpoint_every=5, seed=3)


def run(model, task, path, config=CONFIG, stop=None, **options):
    """The folder of a run that stops after some step, or ends."""
    folder = RunFolder(path, **options)
    for record in train(model, task, config, folder=folder):
        if record.step == stop:
            break
    return folder


def assert_same_weights(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mixer", ["gla", pytest.param("sa", marks=pytest.mark.slow)])
def test_it_learns_the_task(mixer, echo, make_model):
    config, model = dataclasses.replace(CONFIG, steps=150, batch_size=16, rate=2e-2), make_model(mixer)
    first, *_ = train(model, echo, config)
    report = evaluate(model, echo, 16)
    assert first.loss > 1.5
    assert report["accuracy"] > 0.95
    assert report["errors_percent"] == pytest.approx(100 * (1 - report["accuracy"]))


def test_what_a_run_leaves_behind(echo, make_model, tmp_path):
    folder = run(make_model(), echo, tmp_path / "new" / "run", keep_every=5)
    records = folder.records
    assert [record.step for record in records] == list(range(1, 13))
    assert [record.step for record in records if record.held_out] == [4, 8, 12]
    assert all(record.tokens == 48 and record.rate == CONFIG.rate_at(record.step) for record in records)
    losses = {record.step: record.held_out["loss"] for record in records if record.held_out}
    assert folder.best_step == min(losses, key=losses.get)
    assert folder.best["loss"] == min(losses.values())
    kept = [f"step-{step:06d}" for step in (0, 5, 10, 12)]
    names = [path.name for path in sorted(folder.path.iterdir())]
    assert names == ["best", "log.jsonl", "state.safetensors", *kept]
    best = load_checkpoint(folder.path / "best")
    assert evaluate(best, echo, 4)["loss"] == pytest.approx(folder.best["loss"], rel=1e-6)
    assert json.loads((folder.path / "best" / "config.json").read_text())["extra"]["step"] == folder.best_step
    assert_same_weights(load_checkpoint(folder.path / "step-000000"), make_model())


def test_evaluation_is_the_mean_over_scored_targets(echo, make_model):
    model = make_model().double().train()
    nats, correct, count = 0.0, 0, 0
    for input_ids, targets in echo.held_out(5):
        probabilities = model(input_ids).softmax(-1)
        for row, column in (targets >= 0).nonzero().tolist():
            nats -= math.log(probabilities[row, column, targets[row, column]].item())
            correct += int(probabilities[row, column].argmax() == targets[row, column])
            count += 1
    report = evaluate(model, echo, 5)
    assert report["loss"] == pytest.approx(nats / count)
    assert report["accuracy"] == pytest.approx(correct / count)
    assert model.training


def test_one_step_is_that_of_adam_on_the_mean_loss(echo, make_model):
    """AdamW's first step moves each entry by its rate in the direction of the gradient, and decays matrices alone."""
    config = dataclasses.replace(CONFIG, steps=1, warm_up=1.0, weight_decay=0.5)
    before, model = make_model().double(), make_model().double()
    input_ids, targets = echo.sample(4, torch.Generator().manual_seed(config.seed))
    torch.nn.functional.cross_entropy(before(input_ids).flatten(0, 1), targets.flatten()).backward()
    (record,) = train(model, echo, config)
    norm = float(torch.stack([parameter.grad.norm() for parameter in before.parameters()]).norm())
    assert record.gradient_norm == pytest.approx(norm)
    assert norm > 1
    for name, old in before.named_parameters():
        kept = 1 - 0.01 * 0.5 if old.dim() >= 2 else 1
        clipped = old.grad / (norm + 1e-6)
        expected = kept * old - 0.01 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(model.get_parameter(name), expected, rtol=1e-9, atol=1e-9, msg=name)


def test_the_seed_decides_and_the_global_state_is_left_alone(echo, make_model):
    before, models = torch.get_rng_state(), [make_model(dropout=0.2) for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        list(train(model, echo, dataclasses.replace(CONFIG, seed=seed)))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(models[0], models[1])
    assert not torch.equal(models[0].embedding.weight, models[2].embedding.weight)


@pytest.mark.parametrize("stopped", [1, 5, 7, 10])
def test_a_resumed_run_ends_with_the_same_weights_and_log(stopped, echo, make_model, tmp_path):
    """Stopped at a checkpoint, between checkpoints, after an evaluation; with dropout and regularisation."""
    config = dataclasses.replace(CONFIG, identity_weight=0.3)
    whole, resumed = make_model(dropout=0.3), make_model(dropout=0.3, seed=77)
    expected = run(whole, echo, tmp_path / "whole", config, keep_every=5)
    run(make_model(dropout=0.3), echo, tmp_path / "run", config, stopped, keep_every=5)
    found = run(resumed, echo, tmp_path / "run", config, resume=True, keep_every=5)
    assert_same_weights(whole, resumed)
    for name in ("best", "step-000010"):
        assert_same_weights(load_checkpoint(tmp_path / "whole" / name), load_checkpoint(tmp_path / "run" / name))
    assert (found.best_step, found.best) == (expected.best_step, expected.best)
    timeless = [[dataclasses.replace(step, seconds=0.0) for step in one.records] for one in (found, expected)]
    assert timeless[0] == timeless[1]
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 12


def test_a_finished_run_is_resumed_without_a_step_and_what_was_lost_comes_back(echo, make_model, tmp_path):
    run(make_model(), echo, tmp_path)
    before = contents(tmp_path)
    for name in ("best/model.safetensors", "best/config.json", "log.jsonl"):
        (tmp_path / name).unlink()
    assert list(train(make_model(), echo, CONFIG, folder=RunFolder(tmp_path, resume=True))) == []
    assert contents(tmp_path) == before


def test_resuming_nothing_or_what_is_damaged_is_refused(echo, make_model, tmp_path):
    with pytest.raises(FileError):
        run(make_model(), echo, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    for content in (b"", b"x" * 99):
        (tmp_path / "state.safetensors").write_bytes(content)
        with pytest.raises(FileError, match="damaged"):
            run(make_model(), echo, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("model", "task", "config", "message"),
    [
        ({}, {}, {"rate": 0.5}, "rate must be 0.01, "),
        ({"key_size": 8}, {}, {}, "key_size must be 4, "),
        ({"tied": False}, {}, {}, "tied must be True, "),
        ({}, {"length": 13}, {}, "other data"),
        ({}, {"seed": 1}, {}, "other data"),
    ],
)
def test_resuming_with_other_settings_model_or_data_is_refused(
    model, task, config, message, echo, make_model, tmp_path
):
    run(make_model(), echo, tmp_path)
    other = dataclasses.replace(echo, **task), tmp_path, dataclasses.replace(CONFIG, **config)
    with pytest.raises(InputError, match=re.escape(message)):
        run(make_model(**model), *other, resume=True)


def test_a_run_that_diverges_keeps_the_weights_of_the_step_before(echo, make_model):
    model = make_model()
    steps = train(model, echo, dataclasses.replace(CONFIG, rate=1e30))
    next(steps)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DivergenceError):
        list(steps)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model = make_model()
    model.embedding.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(DivergenceError, match=r"^gradient norm"):
        list(train(model, echo, CONFIG))


@pytest.mark.parametrize(
    ("name", "model", "config"),
    [("device", {}, {"device": "nonsense"}), ("model", {"vocabulary_size": 5}, {}), ("steps", {}, {"steps": 0})],
)
def test_what_cannot_be_trained_is_refused_and_writes_nothing(name, model, config, echo, make_model, tmp_path):
    with pytest.raises(InputError, match=f"{name} must (be|have) "):
        run(make_model(**model), echo, tmp_path / "run", dataclasses.replace(CONFIG, **config))
    assert not (tmp_path / "run").exists()


def test_tasks_without_held_out_data_or_targets_are_refused(echo, make_model, tmp_path, monkeypatch):
    ignored = (torch.zeros(2, 12, dtype=torch.long), torch.full((2, 12), -100))
    for batches, message in (((), "no held-out data"), ((ignored,), "held-out data have no target")):
        monkeypatch.setattr(type(echo), "held_out", lambda task, batch_size, batches=batches: iter(batches))
        with pytest.raises(InputError, match=message):
            run(make_model(), echo, tmp_path / message)
