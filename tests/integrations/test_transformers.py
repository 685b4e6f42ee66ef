"""The callback in the Trainer of transformers: readings change nothing."""

import ast
import copy
import json
import math
import re

import pytest
import torch
from oracles.tiny_families import tiny
from transformers import Trainer, TrainerState, TrainingArguments

from statesize.errors import InputError
from statesize.integrations.probe import RECORD, Probe
from statesize.integrations.transformers import StateSizeCallback
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings


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


def probe(**changes):
    tokens = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(8))
    return Probe(tokens, **{"every": 2, "share": math.inf, "settings": Settings(positions=4), **changes})


def read(given, folder, **changes):
    run = trainer(given, texts(16), folder, [], max_steps=4, learning_rate=0.1, **changes)
    run.add_callback(StateSizeCallback(probe(), trainer=run))
    run.train()
    return run, [entry for entry in run.state.log_history if "ess/average" in entry]


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["gla", "mamba2"])
def test_weights_and_losses_are_the_same_with_readings(family, tmp_path):
    first = Causal() if family == "gla" else tiny(family)
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


@pytest.mark.parametrize("known", [True, False])
def test_readings_are_on_the_console_in_the_history_and_in_lines_of_json(known, tmp_path, capsys, caplog):
    run = trainer(Causal("sa"), texts(16), tmp_path, [], max_steps=4)
    run.add_callback(StateSizeCallback(probe(), trainer=run if known else None))
    run.train()
    readings = [entry for entry in run.state.log_history if "ess/average" in entry]
    assert [entry["step"] for entry in readings] == [0, 2, 4]
    printed = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if "ess/" in line]
    assert [list(line) for line in printed] == [["ess/middle", "ess/ceiling_utilisation", "ess/sink_share", "step"]] * 3
    assert [float(line["ess/middle"]) for line in printed] == pytest.approx(
        [entry["ess/middle"] for entry in readings], rel=1e-3
    )
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert [{**line, "run": 0} for line in lines] == [{**entry, "run": 0} for entry in readings]
    news = [record.getMessage() for record in caplog.records if record.name == "statesize"]
    assert [message for message in news if "takes" not in message] == [f"Step 0: readings are in {tmp_path / RECORD}"]
    (callback,) = [callback for callback in run.callback_handler.callbacks if isinstance(callback, StateSizeCallback)]
    assert re.search(rf"3 readings.* at step 4: ESS {readings[-1]['ess/middle']:.2f}", repr(callback))
    assert callback._probing.steps == 4


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["gla", "mamba2", pytest.param("qwen3_next", marks=pytest.mark.slow)])
def test_a_training_in_mixed_precision_has_readings(family, tmp_path):
    model = Causal() if family == "gla" else tiny(family)
    _, readings = read(model, tmp_path, bf16=True)
    assert [(entry["step"], entry["ess/bits"]) for entry in readings] == [(0, 16), (2, 16), (4, 16)]


def test_other_processes_than_the_main_one_measure_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainerState, "is_world_process_zero", property(lambda state: False, lambda state, value: None))
    _, readings = read(Causal(), tmp_path)
    assert readings == []
    assert not (tmp_path / RECORD).exists()


def test_steps_between_readings_are_named_once():
    assert StateSizeCallback(texts(2)).probe.every == 100
    with pytest.raises(InputError):
        StateSizeCallback(Probe(texts(2)), every=5)
