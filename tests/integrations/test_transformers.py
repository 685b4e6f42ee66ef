"""The callbacks in the Trainer of transformers: the gradient is that of the sum, readings change nothing."""

import copy
import json
import math
import re

import pandas as pd
import pytest
import torch
from oracles.recurrent_models import tiny_model
from transformers import IntervalStrategy, Trainer, TrainerCallback, TrainerState, TrainingArguments

from statesize.errors import InputError, ModelError
from statesize.integrations.probe import CONSOLE, RECORD, Probe
from statesize.integrations.regularisation import mixer_calls
from statesize.integrations.transformers import RegularisationCallback, StateSizeCallback, _few
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.training import Regularisation
from statesize.measurement.settings import Settings

# Everything, so that nothing depends on the draws.
EVERYTHING = {"sequences": 99, "units": 999, "positions": 99}


class Causal(torch.nn.Module):
    """A model of statesize with a loss, as the Trainer wants it."""

    def __init__(self, mixer="gla"):
        super().__init__()
        shape = ModelConfig(mixer=mixer, vocabulary_size=64, width=16, heads=2, layers=2, key_size=4, decay_bias=0.0)
        self.model = LanguageModel(shape, torch.Generator().manual_seed(0))

    def forward(self, input_ids, labels=None):
        logits = self.model(input_ids)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def texts(count, length=12):
    tokens = torch.randint(3, 60, (count, length), generator=torch.Generator().manual_seed(4))
    return [{"input_ids": row, "labels": row} for row in tokens]


def trainer(model, data, folder, callbacks, **changes):
    arguments = {
        **{"output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1.0},
        **{"lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0, "logging_steps": 1},
        **{"report_to": "none", "save_strategy": "no", "use_cpu": True, "dataloader_pin_memory": False},
        **{"disable_tqdm": True, "seed": 5, **changes},
    }
    return Trainer(model, TrainingArguments(**arguments), train_dataset=data, callbacks=callbacks)


def batches(given):
    """What the Trainer will draw, in its order."""
    return list(given.get_train_dataloader())


@pytest.mark.few(2)
@pytest.mark.parametrize("family", ["gla", "mamba", "mamba2", "qwen3_next"])
@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_one_step_is_the_gradient_of_the_mean_loss_and_penalty(family, accumulation, tmp_path):
    model = Causal() if family == "gla" else tiny_model(family)
    expected, data = copy.deepcopy(model).train(), texts(2 * accumulation)
    regularisation = Regularisation(0.7, 0.5, 0.9, **EVERYTHING)
    given = trainer(model, data, tmp_path, [], gradient_accumulation_steps=accumulation, learning_rate=0.1)
    given.add_callback(RegularisationCallback(given, regularisation))
    total, generator = 0.0, torch.Generator().manual_seed(0)
    for start in range(0, 2 * accumulation, 2):
        tokens = torch.stack([row["input_ids"] for row in data[start : start + 2]])
        with mixer_calls(expected) as calls:
            loss = expected(input_ids=tokens, labels=tokens)["loss"]
        total = total + (loss + regularisation.penalty(calls, generator)) / accumulation
    total.backward()
    given.get_train_dataloader = lambda: torch.utils.data.DataLoader(data, batch_size=2)
    found = given.train()
    assert found.training_loss == pytest.approx(total.item(), rel=1e-4)
    for name, parameter in expected.named_parameters():
        after = parameter - 0.1 * parameter.grad if parameter.grad is not None else parameter
        torch.testing.assert_close(dict(model.named_parameters())[name], after, rtol=1e-4, atol=1e-6, msg=name)


class Classified(Causal):
    """One label for each text, or for each token: none is shifted."""

    def forward(self, input_ids, labels=None, **kwargs):
        logits = self.model(input_ids)
        chosen = logits[:, -1] if labels.ndim == 1 else logits.flatten(0, 1)
        return {"loss": torch.nn.functional.cross_entropy(chosen, labels.flatten()), "logits": logits}


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("per_token", [False, True])
def test_labels_that_are_not_shifted_all_count(per_token, size, tmp_path):
    data = [
        {"input_ids": row["input_ids"], "labels": row["labels"] if per_token else row["labels"][0]} for row in texts(2)
    ]
    logged = []
    for penalties in (0, 1):
        given = trainer(Classified(), data, tmp_path, [], per_device_train_batch_size=size)
        for _ in range(penalties):
            given.add_callback(RegularisationCallback(given, Regularisation(0.7, **EVERYTHING)))
        given.train()
        logged.append(given.state.log_history[0])
    plain, penalised = logged
    assert penalised["loss"] == pytest.approx(plain["loss"] + penalised["regularisation"], rel=1e-5)


def test_training_opens_the_gates_and_evaluation_is_left_alone(tmp_path):
    data, distances, losses = texts(32), [], []
    for regularised in (False, True):
        model = Causal("wla")
        given = trainer(
            model, data, tmp_path, [], max_steps=20, per_device_train_batch_size=8, optim="adamw_torch",
            learning_rate=0.1,
        )  # fmt: skip
        if regularised:
            given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=3.0)))
        given.train()
        with mixer_calls(model) as calls:
            loss = model(**{name: torch.stack([row[name] for row in data]) for name in data[0]})["loss"]
        distances.append(Regularisation(identity_weight=1.0).penalty(calls, torch.Generator()).item())
        losses.append((given.evaluate(data)["eval_loss"], loss.item()))
        assert not model._forward_hooks
        assert not model._forward_pre_hooks
        logged = [entry for entry in given.state.log_history if "regularisation" in entry]
        assert [entry["step"] for entry in logged] == (list(range(1, 21)) if regularised else [])
    assert distances[1] < 0.5 * distances[0]
    for evaluated, computed in losses:
        assert evaluated == pytest.approx(computed, rel=1e-4)


def test_a_resumed_run_draws_the_same(tmp_path):
    regularisation, weights = Regularisation(utilisation_weight=1.0), []
    for folder, steps in (("whole", (4,)), ("parts", (2, 4))):
        for number, last in enumerate(steps):
            model = Causal()
            given = trainer(
                model, texts(16), tmp_path / folder, [], max_steps=last, save_strategy="steps", save_steps=2,
                learning_rate=0.1,
            )  # fmt: skip
            given.add_callback(RegularisationCallback(given, regularisation, seed=3))
            given.train(resume_from_checkpoint=number > 0)
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


def test_a_model_without_a_loss_is_refused_and_left_as_it_was(tmp_path):
    model = Causal()
    given = trainer(model, texts(4), tmp_path, [])
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))
    given.compute_loss_func = lambda output, labels, num_items_in_batch: output["logits"].square().mean()
    given.model_accepts_loss_kwargs = False
    with pytest.raises(ModelError, match=r"model must return a 'loss' .*, got Causal without"):
        given.train()
    assert not any(module._forward_pre_hooks for module in model.model.modules())


def test_a_step_without_a_penalty_is_told_once_and_ends_no_training(tmp_path, caplog):
    given = trainer(tiny_model("mamba2"), texts(16), tmp_path, [], max_steps=4, learning_rate=1e30)
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))
    given.train()
    assert given.state.global_step == 4
    (record,) = [record for record in caplog.records if record.name == "statesize"]
    assert record.getMessage().startswith("A step was trained without the penalty: A must be finite")


def test_a_training_whose_penalty_is_never_added_does_not_begin(tmp_path):
    given = trainer(Causal("sa"), texts(4), tmp_path, [])
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))
    with pytest.raises(ModelError, match=r"^The training would go on without its penalty: model must have a mixer"):
        given.train()


def probe(**changes):
    tokens = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(8))
    return Probe(tokens, **{"every": 2, "share": math.inf, "settings": Settings(positions=4), **changes})


def read(given, folder, **changes):
    run = trainer(given, texts(16), folder, [], max_steps=4, learning_rate=0.1, **changes)
    run.add_callback(StateSizeCallback(probe(), trainer=run))
    run.train()
    return run, [entry for entry in run.state.log_history if "ess/average" in entry]


def test_a_second_callback_of_readings_is_refused(tmp_path):
    """Its numbers would have the names of the first one's."""
    run = trainer(Causal(), texts(16), tmp_path, [], max_steps=4)
    for _ in range(2):
        run.add_callback(StateSizeCallback(probe(), trainer=run))
    with pytest.raises(InputError, match=r"at most one StateSizeCallback, got 2\. Give all texts"):
        run.train()


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["gla", "mamba2"])
def test_weights_and_losses_are_the_same_with_readings(family, tmp_path):
    first = Causal() if family == "gla" else tiny_model(family)
    second = copy.deepcopy(first)
    plain = trainer(first, texts(16), tmp_path, [], max_steps=4, learning_rate=0.1)
    plain.train()
    run, readings = read(second, tmp_path)
    assert [entry["step"] for entry in readings] == [0, 2, 4]
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    losses = [[entry["loss"] for entry in each.state.log_history if "loss" in entry] for each in (plain, run)]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]


def test_without_another_tool_readings_are_lines_of_json_which_is_told_once(tmp_path, caplog):
    _, readings = read(Causal(), tmp_path)
    told = [one.getMessage() for one in caplog.records if one.name == "statesize"]
    assert [one for one in told if "a reading takes" not in one] == [f"Step 0: readings are in {tmp_path / RECORD}"]
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    for line, entry in zip(lines, readings, strict=True):
        assert line.pop("run")
        assert {name: entry[name] for name in line} == line


def test_a_callback_says_what_it_measures_and_where_readings_are(tmp_path):
    run = trainer(Causal(), texts(4), tmp_path, [])
    lines = [repr(StateSizeCallback(probe(), trainer=given)).splitlines() for given in (None, run)]
    assert lines[0] == [
        "StateSizeCallback of a Probe of 2 sequences of up to 12 tokens: every 2 steps, all heads each time",
        "no reading yet",
        "readings: in log_history of the Trainer's state, and in statesize.jsonl of its output_dir",
        "next: trainer.add_callback(callback), then trainer.train()",
    ]
    assert lines[1][2] == "readings: in log_history of the Trainer's state, and in statesize.jsonl of its output_dir"
    run.args.report_to = ["tensorboard", "wandb"]
    reported = repr(StateSizeCallback(probe(), trainer=run)).splitlines()[2]
    assert reported == "readings: in log_history of the Trainer's state, and in tensorboard, wandb"
    run, readings = read(Causal(), tmp_path)
    (callback,) = [one for one in run.callback_handler.callbacks if isinstance(one, StateSizeCallback)]
    found = repr(callback).splitlines()[1]
    assert re.match(r"3 readings, \d+\.\d s in all\. The last, at step 4, found ESS ", found)
    assert found.endswith(f"ESS {readings[-1]['ess/middle']:.2f} of 4 at the middle")
    regularisation = RegularisationCallback(run, Regularisation(identity_weight=1.0))
    assert repr(regularisation).startswith("RegularisationCallback of Regularisation(identity_weight=1.0")
    assert "\nnot added yet\n" in repr(regularisation)
    assert repr(regularisation).endswith("next: trainer.add_callback(callback), then trainer.train()")
    run.add_callback(regularisation)
    run.train()
    assert re.search(r"\nadded 4 times, the last 0\.\d+\n", repr(regularisation))
    assert "next" not in repr(regularisation)


@pytest.mark.few(2)
@pytest.mark.parametrize("logging_steps", [1, 2, 3])
@pytest.mark.parametrize("early", [True, False])
def test_readings_stand_beside_the_loss_once_on_the_console_and_in_the_history(early, logging_steps, tmp_path, capsys):
    given = [StateSizeCallback(probe())] if early else []
    run = trainer(Causal(), texts(16), tmp_path, given, max_steps=4, logging_steps=logging_steps)
    if not early:
        run.add_callback(StateSizeCallback(probe(), trainer=run))
        run.add_callback(RegularisationCallback(run, Regularisation(identity_weight=1.0)))
    run.train()
    readings = [entry for entry in run.state.log_history if "ess/average" in entry]
    assert [entry["step"] for entry in readings] == [0, 2, 4]
    assert [entry["step"] for entry in readings if "loss" in entry] == [
        step for step in (2, 4) if step % logging_steps == 0
    ]
    losses = [entry for entry in run.state.log_history if "loss" in entry]
    assert all(("regularisation" in entry) is not early for entry in losses)
    printed = [line for line in capsys.readouterr().out.splitlines() if "ess/middle" in line]
    # Without the Trainer, a callback cannot make it print at steps of other entries.
    assert len(printed) == ((0 if logging_steps == 3 else 2) if early else 3)
    for line, entry in zip(printed, readings[-len(printed) :], strict=False):
        assert f"'ess/middle': '{entry['ess/middle']:.4g}'" in line
        assert re.findall(r"ess/\w+", line) == ["ess/middle", "ess/state_utilisation"]
        assert ("'loss'" in line) == ("loss" in entry)
    by_name = [name for name in readings[0] if name.startswith("ess/")]
    assert by_name[0] == "ess/middle"
    assert by_name[-1].startswith("ess/layer_")


def test_a_console_shows_the_sinks_of_attention_in_three_numbers_at_most(tmp_path, capsys):
    _, readings = read(Causal("sa"), tmp_path)
    shown = [re.findall(r"ess/\w+", line) for line in capsys.readouterr().out.splitlines() if "ess/" in line]
    assert shown == [["ess/middle", "ess/ceiling_utilisation", "ess/sink_share"]] * len(readings)
    assert all(entry["ess/sinkless"] > 0 for entry in readings)
    assert list(_few(dict.fromkeys(CONSOLE, 1.0))) == list(CONSOLE[:3])


@pytest.mark.parametrize(("early", "logs_to"), [(True, ""), (True, "tensorboard"), (False, "")])
def test_a_callback_that_some_output_cannot_show_says_so(early, logs_to, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    callback = StateSizeCallback(probe())
    run = trainer(Causal(), texts(16), tmp_path, [callback] if early else [], report_to=logs_to or "none")
    if not early:
        run.add_callback(callback)
    run.train()
    told = [one.getMessage() for one in caplog.records if "trainer=trainer" in one.getMessage()]
    lacks = "What the Trainer reports to" if logs_to else "The console"
    where = "They are in log_history and statesize.jsonl."
    expected = (
        []
        if early and not logs_to
        else [f"{lacks} shows no readings: give StateSizeCallback(…, trainer=trainer). {where}"]
    )
    assert told == expected


def test_two_trainings_in_one_folder_are_told_apart(tmp_path):
    for _ in range(2):
        read(Causal(), tmp_path)
    lines = pd.read_json(tmp_path / RECORD, lines=True)
    assert lines.groupby("run")["step"].apply(list).tolist() == [[0, 2, 4], [0, 2, 4]]
    assert lines["run"].is_monotonic_increasing


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["gla", "mamba2", pytest.param("qwen3_next", marks=pytest.mark.slow)])
def test_a_training_in_mixed_precision_has_readings(family, tmp_path):
    model = Causal() if family == "gla" else tiny_model(family)
    _, readings = read(model, tmp_path, bf16=True)
    assert [entry["step"] for entry in readings] == [0, 2, 4]


def test_a_record_that_cannot_be_written_is_told_once_and_ends_no_training(tmp_path, caplog):
    (tmp_path / RECORD).mkdir()
    run, readings = read(Causal(), tmp_path)
    assert run.state.global_step == 4
    assert [entry["step"] for entry in readings] == [0, 2, 4]
    told = [record.getMessage() for record in caplog.records if record.name == "statesize"]
    (unwritten,) = [one for one in told if "a reading takes" not in one]
    assert unwritten.startswith("Step 0: the reading was not written: ")


@pytest.mark.slow
def test_tensorboard_has_them(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    _, readings = read(Causal(), tmp_path, report_to="tensorboard")
    found = events.EventAccumulator(str(tmp_path / "events"))
    found.Reload()
    scalars = [(event.step, event.value) for event in found.Scalars("train/ess/average")]
    assert scalars == [(entry["step"], pytest.approx(entry["ess/average"])) for entry in readings]
    # What the console leaves out.
    assert len(found.Scalars("train/ess/layers")) == 3
    assert not (tmp_path / RECORD).exists()


def test_tensorboard_has_the_penalty(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    given = trainer(Causal(), texts(16), tmp_path, [], report_to="tensorboard", max_steps=4, logging_steps=2)
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))
    given.train()
    found = events.EventAccumulator(str(tmp_path / "events"))
    found.Reload()
    history = {entry["step"]: entry["regularisation"] for entry in given.state.log_history if "regularisation" in entry}
    assert list(history) == [2, 4]
    scalars = {event.step: event.value for event in found.Scalars("train/regularisation")}
    assert scalars == pytest.approx(history)
    assert [event.step for event in found.Scalars("train/loss")] == [2, 4]


@pytest.mark.slow
def test_mlflow_has_them(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    # A test before it in this process may have set another.
    mlflow.set_tracking_uri(store)
    _, readings = read(Causal(), tmp_path, report_to="mlflow")
    try:
        client = mlflow.MlflowClient(store)
        history = client.get_metric_history(mlflow.last_active_run().info.run_id, "ess/average")
    finally:
        mlflow.end_run()
    assert [(each.step, each.value) for each in history] == [
        (entry["step"], pytest.approx(entry["ess/average"])) for entry in readings
    ]


@pytest.mark.slow
def test_wandb_has_them_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "DISABLE_CODE": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    # What a test before it in this process has set up would be used again.
    wandb.teardown()
    _, readings = read(Causal(), tmp_path, report_to="wandb")
    try:
        summary = dict(wandb.run.summary)
    finally:
        wandb.finish()
    assert summary["train/ess/average"] == pytest.approx(readings[-1]["ess/average"])
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_evaluation_during_training_takes_no_penalty(tmp_path):
    model, data = Causal("wla"), texts(8)
    given = trainer(model, data, tmp_path, [], max_steps=2, learning_rate=0.1)
    given.eval_dataset, given.args.eval_strategy, given.args.eval_steps = data, IntervalStrategy.STEPS, 1
    given.state.eval_steps = 1
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))
    given.train()
    losses = [entry["eval_loss"] for entry in given.state.log_history if "eval_loss" in entry]
    rows = {name: torch.stack([row[name] for row in data]) for name in data[0]}
    assert losses[-1] == pytest.approx(model.eval()(**rows)["loss"].item(), rel=1e-5)
    assert len([entry for entry in given.state.log_history if "regularisation" in entry]) == len(losses) == 2


def test_a_forward_pass_that_fails_says_its_own_error(tmp_path):
    model = Causal()
    given = trainer(model, texts(4), tmp_path, [])
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=1.0)))

    def fail(*_):
        raise ValueError("out of range")

    with model.model.register_forward_hook(fail), pytest.raises(ValueError, match=r"^out of range$"):
        given.train()
    assert not any(module._forward_pre_hooks for module in model.model.modules())


class Interrupt(TrainerCallback):
    """Ctrl-C in the second step, between forward passes or in one."""

    def __init__(self, inside):
        self.inside = inside

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == 1:
            if not self.inside:
                raise KeyboardInterrupt
            model.model.register_forward_pre_hook(self.interrupt)

    def interrupt(self, *_):
        raise KeyboardInterrupt


@pytest.mark.parametrize("inside", [False, True])
def test_an_interrupted_training_leaves_no_penalty_for_the_next_one(inside, tmp_path):
    model, data = Causal(), texts(8)
    given = trainer(model, data, tmp_path, [], max_steps=2, learning_rate=0.1)
    given.add_callback(RegularisationCallback(given, Regularisation(identity_weight=5.0)))
    given.add_callback(Interrupt(inside))
    with pytest.raises(KeyboardInterrupt):
        given.train()
    for part in model.model.modules():
        if inside and part is model.model:
            part._forward_pre_hooks.clear()
        assert not part._forward_pre_hooks
        assert not part._forward_hooks
    losses = []
    for copied in (model, Causal()):
        copied.load_state_dict(copy.deepcopy(model.state_dict()))
        again = trainer(copied, data, tmp_path, [], max_steps=1, learning_rate=0.0)
        losses.append(again.train().training_loss)
    assert losses[0] == losses[1]
    # The same Trainer adds its penalty once, and none without its callback.
    fresh = trainer(model, data, tmp_path, [], max_steps=1, learning_rate=0.0)
    fresh.add_callback(RegularisationCallback(fresh, Regularisation(identity_weight=5.0)))
    regularised = fresh.train().training_loss
    assert regularised > losses[0]
    given.remove_callback(Interrupt)
    given.args.max_steps, given.args.learning_rate, given.optimizer, given.lr_scheduler = 1, 0.0, None, None
    assert given.train().training_loss == regularised
    (entry,) = [entry for entry in given.state.log_history if "loss" in entry]
    assert entry["regularisation"] == pytest.approx(regularised - losses[0], rel=1e-4)
    given.remove_callback(RegularisationCallback)
    assert given.train().training_loss == losses[0]


def test_two_callbacks_are_both_added_and_both_taken_away(tmp_path):
    model, data = Causal(), texts(8)
    given = trainer(model, data, tmp_path, [], learning_rate=0.0)
    alone = given.train().training_loss
    regularisation = Regularisation(identity_weight=1.0)
    for _ in range(2):
        given.add_callback(RegularisationCallback(given, regularisation))
    found = [given.train().training_loss - alone for _ in range(2)]
    assert found[0] == found[1]
    given.remove_callback(RegularisationCallback)
    once = given.train().training_loss - alone
    assert found[0] == pytest.approx(2 * once, rel=1e-4)
    given.remove_callback(RegularisationCallback)
    assert given.train().training_loss == alone
    assert not model._forward_hooks


def test_a_callback_of_another_trainer_is_refused(tmp_path):
    first, second = (trainer(Causal(), texts(4), tmp_path, []) for _ in range(2))
    second.add_callback(RegularisationCallback(first, Regularisation(identity_weight=1.0)))
    with pytest.raises(InputError, match=r"^trainer must be the Trainer that the callback is added to, got another\."):
        second.train()


def test_other_processes_than_the_main_one_measure_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainerState, "is_world_process_zero", property(lambda state: False, lambda state, value: None))
    _, readings = read(Causal(), tmp_path)
    assert readings == []
    assert not (tmp_path / RECORD).exists()


def test_token_ids_are_enough(tmp_path):
    ids = [row["input_ids"].tolist() for row in texts(2)]
    run = trainer(Causal(), texts(16), tmp_path, [StateSizeCallback(ids, every=2)], max_steps=4)
    run.train()
    readings = [entry for entry in run.state.log_history if "ess/average" in entry]
    # The first reading is always due; a later one may wait until it fits into its share of the time.
    assert readings[0]["step"] == 0
    kept = [json.loads(line) for line in (tmp_path / RECORD).read_text(encoding="utf-8").splitlines()]
    assert len({line.pop("run") for line in kept}) == 1
    assert all(line.items() <= entry.items() for line, entry in zip(kept, readings, strict=True))


def test_steps_between_readings_are_named_once():
    assert StateSizeCallback(texts(2)).probe.every == 100
    with pytest.raises(InputError, match="every must be left out beside a Probe, which has its own, got 5"):
        StateSizeCallback(Probe(texts(2)), every=5)
