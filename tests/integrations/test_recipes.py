"""The lines of the page on training, in the tools that they are for, or in loops that call them as those do."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from statesize.integrations.probe import Probe, Probing
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE, APPENDIX = (
    (DOCS / page).read_text(encoding="utf-8") for page in ("in-training.md", "appendix/training-terms.md")
)
LINES = dict(re.findall(r"^\| ([^|]+) \| `([^`|]+)` \|$", PAGE, re.MULTILINE))
TEXTS = torch.randint(32, (2, 20), generator=torch.Generator().manual_seed(1))
NAME = "ess/average"


def small_model():
    shape = ModelConfig("gla", vocabulary_size=32, width=16, heads=2, layers=2, key_size=4)
    return LanguageModel(shape, torch.Generator().manual_seed(0))


def every(steps):
    return Probing(Probe(TEXTS, every=steps, share=math.inf, settings=Settings(positions=4)))


@pytest.fixture(scope="module")
def values():
    return every(1).step(small_model(), 1)


def test_wandb_takes_a_reading(values, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "DISABLE_CODE": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()
    with wandb.init() as run:
        exec(LINES["Weights & Biases"], {"values": values, "step": 7, "wandb": wandb})  # noqa: S102
        # A step is committed with the next one.
        wandb.log({}, step=8)
        summary = dict(run.summary)
    assert {name: summary[name] for name in values} == pytest.approx(values)
    assert summary["_step"] == 7


def test_mlflow_takes_a_reading(values, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with mlflow.start_run() as run:
        exec(LINES["MLflow"], {"values": values, "step": 7, "mlflow": mlflow})  # noqa: S102
    assert mlflow.get_run(run.info.run_id).data.metrics == pytest.approx(values)


def test_tensorboard_takes_a_reading(values, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        exec(LINES["TensorBoard"], {"values": values, "step": 7, "writer": writer})  # noqa: S102
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert {name: found.Scalars(name)[0].value for name in values} == pytest.approx(values)
    assert found.Scalars(NAME)[0].step == 7


def test_the_loop_of_nanochat_logs_readings():
    log = []
    names = {"probing": every(2), "orig_model": small_model(), "wandb_run": SimpleNamespace(log=log.append)}
    line = next(line for tool, line in LINES.items() if tool.startswith("nanochat"))
    for step in range(4):
        exec(line, {"step": step} | names)  # noqa: S102
    assert [entry["step"] for entry in log] == [0, 2]
    assert all(NAME in entry for entry in log)


class Metrics:
    """`log` of torchtitan's MetricsProcessor as torchtitan 0.3.0 and flame at e11e7be call it."""

    def __init__(self):
        self.entries = {}

    def log(self, step, global_avg_loss, global_max_loss, grad_norm=0.0, extra_metrics=None):
        self.entries[step] = {"loss": global_avg_loss} | (extra_metrics or {})


def test_torchtitan_and_flame_log_readings_beside_their_own_numbers():
    metrics, names = Metrics(), {}
    (block,) = re.findall(r"^```python\n(def log_memory.*?)^```$", APPENDIX, re.MULTILINE | re.DOTALL)
    exec(block, names)  # noqa: S102
    names["log_memory"](metrics, small_model(), every(2))
    for step in range(1, 5):
        metrics.log(step, 2.5, 2.5, 0.1, extra_metrics={"lr": 0.1})
    metrics.log(6, 2.5, 2.5)
    assert [step for step, entry in metrics.entries.items() if NAME in entry] == [2, 4, 6]
    assert all(entry["loss"] == 2.5 for entry in metrics.entries.values())
    assert metrics.entries[1] == {"loss": 2.5, "lr": 0.1}
