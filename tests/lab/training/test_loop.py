"""The training loop: learning, resuming bit for bit, interruption, bad runs."""

import dataclasses
import json
import math
import shutil

import pytest
import safetensors.torch
import torch

from statesize.errors import FileError, InputError, StatesizeError
from statesize.io.files import digest
from statesize.lab.mixers import load_checkpoint
from statesize.lab.tasks import from_arrays
from statesize.lab.training import TrainingConfig, evaluate, train
from statesize.lab.training.step import new_state

CONFIG = TrainingConfig(steps=12, batch_size=4, rate=1e-2, evaluate_every=4, checkpoint_every=5, seed=3)


def stop_after(step):
    def on_progress(record):
        if record.step == step:
            raise KeyboardInterrupt

    return on_progress


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def states(folder):
    """The checkpoints of a run, in their order."""
    return sorted((folder / "state").glob("v*"))


def assert_same_weights(one, other):
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, other.state_dict()[name]), name


# Two of each family take the same way through the loop.
MIXERS = ["sa", "gla", *(pytest.param(one, marks=pytest.mark.slow) for one in ("la", "wla"))]


@pytest.mark.few(1)
@pytest.mark.parametrize("mixer", MIXERS)
def test_it_learns_the_task(mixer, echo, make_model, tmp_path):
    config = dataclasses.replace(CONFIG, steps=150, batch_size=16, rate=2e-2, evaluate_every=150, checkpoint_every=150)
    record = train(make_model(mixer), echo, config, tmp_path)
    assert record.steps[0].loss > 1.5
    assert record.best["accuracy"] > 0.95
    assert record.best["errors_percent"] == pytest.approx(100 * (1 - record.best["accuracy"]))


def test_what_a_run_leaves_behind(echo, make_model, tmp_path):
    model, seen = make_model(), []
    record = train(model, echo, CONFIG, tmp_path / "new" / "run", on_progress=seen.append)
    assert [step.step for step in record.steps] == list(range(1, 13))
    assert list(record.steps) == seen
    assert [step.step for step in seen if step.held_out] == [4, 8, 12]
    assert all(step.tokens == 4 * 12 and step.seconds > 0 and step.rate == CONFIG.rate_at(step.step) for step in seen)
    losses = {step.step: step.held_out["loss"] for step in seen if step.held_out}
    assert record.best_step == min(losses, key=losses.get)
    assert record.best["loss"] == min(losses.values())
    names = sorted(path.name for path in record.folder.iterdir())
    assert names == ["best", "log.jsonl", "state"]
    assert len(states(record.folder)) == 2
    best = load_checkpoint(record.folder / "best")
    assert evaluate(best, echo, 4)["loss"] == pytest.approx(record.best["loss"], rel=1e-6)
    assert json.loads((record.folder / "best" / "config.json").read_text())["extra"]["step"] == record.best_step


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


@pytest.mark.parametrize(
    ("mixer", "decays", "decayed"),
    [
        ("gla", "decay.bias", False),
        ("wla", "decay_bias", True),
        ("s6", "log_rate", True),
    ],
)
def test_weight_decay_acts_on_all_but_vectors(mixer, decays, decayed, echo, make_model):
    model = make_model(mixer)
    group, others = new_state(model, echo, dataclasses.replace(CONFIG, weight_decay=0.1)).optimizer.param_groups
    assert (group["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    parameter = model.blocks[0].mixer.get_parameter(decays)
    assert any(parameter is one for one in group["params"]) is decayed


def test_the_seed_decides_and_the_global_state_is_left_alone(echo, make_model, tmp_path):
    before, models = torch.get_rng_state(), [make_model(dropout=0.2) for _ in range(3)]
    for place, (model, seed) in enumerate(zip(models, (3, 3, 4), strict=True)):
        train(model, echo, dataclasses.replace(CONFIG, seed=seed), tmp_path / str(place))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(models[0], models[1])
    assert not torch.equal(models[0].embedding.weight, models[2].embedding.weight)


@pytest.mark.few(2)
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("stopped", [5, 7, 10])
def test_a_resumed_run_ends_with_the_same_weights_and_log(mixer, stopped, echo, make_model, tmp_path):
    """Stopped at a checkpoint, between checkpoints, after an evaluation; with dropout."""
    whole = make_model(mixer, dropout=0.3)
    expected = train(whole, echo, CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(make_model(mixer, dropout=0.3), echo, CONFIG, tmp_path / "run", on_progress=stop_after(stopped))
    resumed = make_model(mixer, dropout=0.3, seed=77)
    seen = []
    record = train(resumed, echo, CONFIG, tmp_path / "run", resume=True, on_progress=seen.append)
    assert seen[0].step == stopped // 5 * 5 + 1
    assert_same_weights(whole, resumed)
    assert_same_weights(load_checkpoint(tmp_path / "whole" / "best"), load_checkpoint(tmp_path / "run" / "best"))
    assert (record.best_step, record.best) == (expected.best_step, expected.best)
    timeless = [[dataclasses.replace(step, seconds=0.0) for step in one.steps] for one in (record, expected)]
    assert timeless[0] == timeless[1]


def test_a_finished_run_is_resumed_without_a_step(echo, make_model, tmp_path):
    expected = train(make_model(), echo, CONFIG, tmp_path)
    seen = []
    assert train(make_model(), echo, CONFIG, tmp_path, resume=True, on_progress=seen.append) == expected
    assert seen == []


def test_an_interruption_leaves_the_last_checkpoint_whole(echo, make_model, tmp_path):
    """Also when it falls into the writing of a checkpoint: the old file stays until the new one is complete."""
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), echo, CONFIG, tmp_path, on_progress=stop_after(7))
    before = states(tmp_path)
    half = before[-1].with_name(f".{before[-1].name}.1.part")  # what a killed process may leave
    half.write_bytes(before[-1].read_bytes()[:100])
    record = train(make_model(), echo, CONFIG, tmp_path, resume=True)
    assert len(record.steps) == 12
    assert not set(before) & set(states(tmp_path))


def test_a_folder_with_a_run_is_not_overwritten(echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileError, match="holds a training run; resume it"):
        train(make_model(), echo, CONFIG, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["log.jsonl", "best/model.safetensors", "best"])
def test_files_of_something_else_are_not_overwritten(name, echo, make_model, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"mine": 1}\n')
    with pytest.raises(FileError, match="is in the way and no checkpoint is beside it"):
        train(make_model(), echo, CONFIG, tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_text() == '{"mine": 1}\n'


def test_a_run_stopped_at_its_first_step_is_resumed(echo, make_model, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), echo, CONFIG, tmp_path / "run", on_progress=stop_after(1))
    whole, resumed = make_model(), make_model(seed=5)
    train(whole, echo, CONFIG, tmp_path / "whole")
    train(resumed, echo, CONFIG, tmp_path / "run", resume=True)
    assert_same_weights(whole, resumed)


def test_a_run_killed_before_its_log_is_resumed_and_before_its_first_checkpoint_begun_anew(echo, make_model, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".half.1.part").touch()
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), echo, CONFIG, tmp_path, on_progress=stop_after(1))
    (tmp_path / "log.jsonl").unlink()
    assert len(train(make_model(), echo, CONFIG, tmp_path, resume=True).steps) == 12


@pytest.mark.parametrize("resume", [False, True])
def test_the_start_is_told_once_before_the_first_step(resume, echo, make_model, tmp_path):
    if resume:
        train(make_model(), echo, CONFIG, tmp_path)
    told = []

    def on_start(folder):
        told.append((folder, len((folder / "log.jsonl").read_text().splitlines())))

    train(make_model(), echo, CONFIG, tmp_path, resume=resume, on_start=on_start)
    assert told == [(tmp_path, 12 if resume else 0)]


def test_a_start_that_is_refused_is_not_told(echo, make_model, tmp_path):
    told = []
    train(make_model(), echo, CONFIG, tmp_path)
    with pytest.raises(FileError):
        train(make_model(), echo, CONFIG, tmp_path, on_start=told.append)
    with pytest.raises(InputError):
        train(make_model(key_size=8), echo, CONFIG, tmp_path, resume=True, on_start=told.append)
    assert told == []


def test_resuming_nothing_is_refused_and_writes_nothing(echo, make_model, tmp_path):
    with pytest.raises(FileError, match="nothing to resume"):
        train(make_model(), echo, CONFIG, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resuming_with_other_settings_model_or_data_is_refused(echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path)
    with pytest.raises(InputError, match=r"rate must be 0\.01, with which .* was made, got 0\.5"):
        train(make_model(), echo, dataclasses.replace(CONFIG, rate=0.5), tmp_path, resume=True)
    with pytest.raises(InputError, match=r"key_size must be 4, with which .* was made, got 8"):
        train(make_model(key_size=8), echo, CONFIG, tmp_path, resume=True)
    with pytest.raises(InputError, match="other held-out data"):
        train(make_model(), dataclasses.replace(echo, length=13), CONFIG, tmp_path, resume=True)
    with pytest.raises(InputError, match="other training data"):
        train(make_model(), dataclasses.replace(echo, seed=1), CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize(("row", "data"), [(5, "training"), (-1, "held-out")])
def test_a_change_in_any_sequence_is_noticed(row, data, make_model, tmp_path):
    def task(tokens, file="here"):
        return dataclasses.replace(from_arrays(tokens, tokens.roll(2, 1)), file=file)

    tokens = torch.randint(7, (400, 12), generator=torch.Generator().manual_seed(8))
    train(make_model(), task(tokens), CONFIG, tmp_path)
    other = tokens.clone()
    other[row, 3] = (other[row, 3] + 1) % 7
    with pytest.raises(InputError, match=f"other {data} data"):
        train(make_model(), task(other), CONFIG, tmp_path, resume=True)
    # Data that have moved are the same.
    assert len(train(make_model(), task(tokens, "there"), CONFIG, tmp_path, resume=True).steps) == 12


def test_a_setting_that_is_left_out_at_its_default_is_compared(echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path / "plain")
    compiled = dataclasses.replace(CONFIG, compiled=True)
    with pytest.raises(InputError, match=r"compiled must be False, with which .* was made, got True"):
        train(make_model(), echo, compiled, tmp_path / "plain", resume=True)
    # Scans are taken as they are, so that no compiler is needed.
    train(make_model("s6"), echo, compiled, tmp_path / "compiled")
    with pytest.raises(InputError, match=r"compiled must be True, with which .* was made, got False"):
        train(make_model("s6"), echo, CONFIG, tmp_path / "compiled", resume=True)
    train(make_model(tied=False), echo, CONFIG, tmp_path / "untied")
    with pytest.raises(InputError, match=r"tied must be False, with which .* was made, got True"):
        train(make_model(), echo, CONFIG, tmp_path / "untied", resume=True)


def flipped(content):
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


DAMAGES = [lambda content: content[:-7], lambda content: b"", lambda content: b"x" * 99, flipped]


@pytest.mark.few(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used_and_the_one_before_it_is(damage, echo, make_model, tmp_path, caplog):
    whole, resumed = make_model(), make_model()
    expected = train(whole, echo, CONFIG, tmp_path)
    for path in (states(tmp_path)[-1], tmp_path / "best" / "model.safetensors", tmp_path / "log.jsonl"):
        path.write_bytes(damage(path.read_bytes()))
    seen = []
    record = train(resumed, echo, CONFIG, tmp_path, resume=True, on_progress=seen.append)
    assert "000012-" in caplog.text
    assert "is damaged" in caplog.text
    assert [step.step for step in seen] == [11, 12]
    assert_same_weights(whole, resumed)
    assert record.best == expected.best
    assert record.steps[:10] == expected.steps[:10]
    assert evaluate(load_checkpoint(tmp_path / "best"), echo, 4)["loss"] == pytest.approx(record.best["loss"], rel=1e-6)


def test_best_weights_and_log_are_restored_from_the_checkpoint(echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("best/model.safetensors", "best/config.json", "log.jsonl"):
        (tmp_path / name).unlink()
    train(make_model(), echo, CONFIG, tmp_path, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_whole_checkpoint_nothing_is_resumed(damage, echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path)
    for path in states(tmp_path):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=r"holds no whole checkpoint.*Start the run without resume, in a new folder"):
        train(make_model(), echo, CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize("values", ["[" * 100_000, "[]", None])
def test_a_state_that_is_none_is_refused(values, echo, make_model, tmp_path):
    train(make_model(), echo, CONFIG, tmp_path)
    metadata = None if values is None else {"statesize": values}
    content = safetensors.torch.save({"x": torch.zeros(1)}, metadata=metadata)
    for path in states(tmp_path):
        path.unlink()
        path.with_name(f"{path.stem.rpartition('-')[0]}-{digest(content)}.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="holds no whole checkpoint"):
        train(make_model(), echo, CONFIG, tmp_path, resume=True)


def test_two_runs_in_one_folder_are_refused(echo, make_model, tmp_path):
    def start_another(record):
        with pytest.raises(FileError, match=r"another process \(\d+ on .*\) writes to"):
            train(make_model(), echo, CONFIG, tmp_path, resume=True)

    train(make_model(), echo, CONFIG, tmp_path, on_progress=start_another)
    assert not (tmp_path / ".in-use").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(echo, make_model, tmp_path):
    model = make_model()

    def poison(record):
        if record.step == 6:
            with torch.no_grad():
                model.norm.weight[0] = math.nan

    with pytest.raises(StatesizeError, match=r"loss is nan at step 7; the checkpoint of step 5 is intact"):
        train(model, echo, CONFIG, tmp_path, on_progress=poison)
    assert len(train(make_model(), echo, CONFIG, tmp_path, resume=True).steps) == 12


def test_a_gradient_that_is_not_finite_stops_the_run(echo, make_model, tmp_path):
    model = make_model()
    model.embedding.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(StatesizeError, match=r"gradient norm is \w+ at step 1\. Try a learning rate below 0\.01"):
        train(model, echo, CONFIG, tmp_path)


def test_places_that_cannot_be_written_are_refused(echo, make_model, tmp_path):
    (tmp_path / "file").write_text("taken")
    with pytest.raises(FileError, match="cannot write to"):
        train(make_model(), echo, CONFIG, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "taken"


def test_a_device_that_is_not_there_is_refused(echo, make_model, tmp_path):
    with pytest.raises(InputError, match="device must be one that torch can use here, got 'nonsense'"):
        train(make_model(), echo, dataclasses.replace(CONFIG, device="nonsense"), tmp_path)


def test_a_model_with_too_small_a_vocabulary_is_refused(echo, make_model, tmp_path):
    with pytest.raises(InputError, match="model must have at least the 7 tokens of the task, got 5"):
        train(make_model(vocabulary_size=5), echo, CONFIG, tmp_path)


def test_training_of_no_steps_is_refused_and_writes_nothing(echo, make_model, tmp_path):
    with pytest.raises(InputError, match="steps must be at least 1"):
        train(make_model(), echo, dataclasses.replace(CONFIG, steps=0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written_is_one_line(echo, make_model, tmp_path):
    def take_its_place(record):
        if record.step == 4:
            shutil.rmtree(tmp_path / "state")
            (tmp_path / "state").touch()

    with pytest.raises(FileError, match=r"cannot write .*state"):
        train(make_model(), echo, CONFIG, tmp_path, on_progress=take_its_place)


def test_tasks_without_held_out_data_or_targets_are_refused(echo, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(type(echo), "held_out", lambda task, batch_size: iter(()))
    with pytest.raises(InputError, match="no held-out data; at least one sequence"):
        train(make_model(), echo, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    ignored = (torch.zeros(2, 12, dtype=torch.long), torch.full((2, 12), -100))
    monkeypatch.setattr(type(echo), "held_out", lambda task, batch_size: iter([ignored]))
    with pytest.raises(InputError, match="held-out data have no target"):
        evaluate(make_model(), echo, 2)
