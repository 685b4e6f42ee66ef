"""The callback in the Trainer of Lightning: readings change nothing."""

import copy
import json
import logging
import math
import re

import pandas as pd
import pytest
import torch

pytest.importorskip("lightning")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from statesize.integrations.lightning import StateSizeCallback
from statesize.integrations.probe import RECORD, Probe
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")


class Causal(LightningModule):
    def __init__(self, mixer="gla", rate=0.1):
        super().__init__()
        shape = ModelConfig(mixer=mixer, vocabulary_size=32, width=16, heads=2, layers=2, key_size=4, decay_bias=0.0)
        self.model, self.rate = LanguageModel(shape, torch.Generator().manual_seed(0)), rate

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch).flatten(0, 1), batch.flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def fit(module, tokens, folder, callbacks, **changes):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    given = quiet | {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": folder} | changes
    trainer = Trainer(callbacks=callbacks, **given)
    trainer.fit(module, torch.utils.data.DataLoader(tokens, batch_size=2))
    return trainer


def texts(count):
    return torch.randint(32, (count, 12), generator=torch.Generator().manual_seed(4))


def state_size(every=2):
    probe = Probe(texts(2), every=every, share=math.inf, settings=Settings(positions=4))
    return StateSizeCallback(probe, module="model")


@pytest.mark.few(1)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_weights_are_the_same_with_readings_which_are_lines_of_json(accumulation, tmp_path):
    first = Causal()
    second = copy.deepcopy(first)
    torch.manual_seed(0)
    fit(first, texts(16), tmp_path, [], accumulate_grad_batches=accumulation)
    torch.manual_seed(0)
    callback = state_size()
    fit(second, texts(16), tmp_path, [callback], accumulate_grad_batches=accumulation)
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(0, 8 // accumulation + 1, 2))
    assert all(0 < line["ess/state_utilisation"] <= 1 for line in lines)
    assert len({line["run"] for line in lines}) == 1
    steps, last = 8 // accumulation, lines[-1]["ess/middle"]
    assert f"at step {steps}: ESS {last:.2f}" in repr(callback)
    assert callback._probing.steps == steps


class Two(Causal):
    def __init__(self):
        super().__init__()
        self.other, self.measure = torch.nn.Linear(2, 2), torch.nn.ReLU()


@pytest.mark.parametrize(
    ("module", "part", "cause"),
    [
        (Causal, "modle", "module must name the part of Causal that takes token ids, got 'modle'. .*: model."),
        (Two, "", "module must name the part of Two that takes token ids, got ''. .*: model, other."),
    ],
)
def test_a_part_that_is_not_there_is_told_once_and_ends_no_training(module, part, cause, tmp_path, caplog):
    callback = StateSizeCallback(Probe(texts(2), every=1, share=math.inf, settings=Settings(positions=4)), module=part)
    with caplog.at_level(logging.WARNING, logger="statesize"):
        trainer = fit(module(), texts(8), tmp_path, [callback])
    assert trainer.global_step == 4
    (record,) = [record for record in caplog.records if record.name == "statesize"]
    assert re.search(cause, record.getMessage())


def test_a_module_without_forward_is_measured_by_its_only_part(tmp_path):
    callback = StateSizeCallback(Probe(texts(2), every=2, share=math.inf, settings=Settings(positions=4)))
    fit(Causal(), texts(8), tmp_path, [callback])
    assert [json.loads(line)["step"] for line in (tmp_path / RECORD).read_text().splitlines()] == [0, 2, 4]


def test_loggers_have_the_readings(tmp_path):
    logger = CSVLogger(tmp_path, "", "")
    fit(Causal(), texts(8), tmp_path / "root", [state_size()], logger=logger)
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert rows["step"].tolist() == [0, 2, 4]
    assert rows["ess/average"].notna().all()
    assert not (tmp_path / "root" / RECORD).exists()
