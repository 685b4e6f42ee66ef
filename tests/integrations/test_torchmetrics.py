"""The metric: what a profile says, and the same merged over batches and over processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

pytest.importorskip("torchmetrics")

import statesize
from statesize.errors import InputError
from statesize.integrations.torchmetrics import StateSizeMetric
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings

TEXTS = torch.randint(3, 200, (3, 16), generator=torch.Generator().manual_seed(2))


def model_of(mixer="gla"):
    shape = ModelConfig(mixer=mixer, vocabulary_size=200, width=16, heads=4, layers=2, key_size=24)
    return LanguageModel(shape, torch.Generator().manual_seed(0)).eval()


# The other process.
PROCESS = """
import json, sys
import torch
from integrations.test_torchmetrics import together

torch.set_num_threads(1)
print(json.dumps(together(1, *sys.argv[1:])))
"""


def together(rank, meeting, texts):
    """What two processes compute together, from batches of both."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        metric = StateSizeMetric(Settings(positions=5, channels=2))
        for text in json.loads(texts):
            metric.update(model_of(), torch.tensor([text]))
        found = numbers(metric)
        torch.distributed.barrier()
        return found
    finally:
        torch.distributed.destroy_process_group()


def numbers(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def whole(**settings):
    metric = StateSizeMetric(Settings(**settings))
    metric.update(model_of(), TEXTS)
    return numbers(metric)


def test_it_is_what_a_profile_says():
    found = whole(positions=7)
    profile = statesize.profile(model_of(), TEXTS, positions=7)
    expected = statesize.compare([profile]).models[0]
    assert found["average_ess"] == pytest.approx(expected.average_entropy, rel=1e-5)
    assert found["total_ess"] == pytest.approx(expected.total_entropy, rel=1e-5)
    assert math.isnan(found["state_utilisation"])


def test_shares_of_a_state_and_of_a_ceiling():
    texts = torch.randint(3, 200, (2, 64), generator=torch.Generator().manual_seed(3))
    for name, of, other in (("gla", "state", "ceiling"), ("sa", "ceiling", "state")):
        model, metric = model_of(name), StateSizeMetric(Settings(positions=7))
        metric.update(model, texts)
        expected = statesize.compare([statesize.profile(model, texts, positions=7)]).models[0]
        found = numbers(metric)
        assert found[f"{of}_utilisation"] == pytest.approx(getattr(expected, f"{of}_utilisation"), rel=1e-5)
        assert math.isnan(found[f"{other}_utilisation"])


def test_batches_and_merged_metrics_weigh_sequences_alike_and_reset_forgets():
    model = model_of()
    parts = [StateSizeMetric(Settings(positions=5)), StateSizeMetric(Settings(positions=5))]
    parts[0].update(model, TEXTS[:2])
    parts[1].update(model, TEXTS[2:])
    parts[0].merge_state(parts[1])
    assert numbers(parts[0]) == pytest.approx(whole(positions=5), rel=1e-9, nan_ok=True)
    parts[0].reset()
    parts[0].update(model, TEXTS)
    assert numbers(parts[0]) == pytest.approx(whole(positions=5), rel=1e-9, nan_ok=True)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    first, second = (json.dumps(share.tolist()) for share in (TEXTS[:2], TEXTS[2:]))
    meeting, tests = str(tmp_path / "meeting"), str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", PROCESS, meeting, second]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        here = together(0, meeting, first)
        there = json.loads(process.communicate()[0].splitlines()[-1])
    assert process.returncode == 0
    assert here == pytest.approx(there, rel=0, abs=0, nan_ok=True)
    assert here == pytest.approx(whole(positions=5, channels=2), rel=1e-9, nan_ok=True)


def test_settings_name_what_layers_mix():
    with pytest.raises(InputError, match="mixes must name modules of the model, got 'nowhere'"):
        StateSizeMetric(Settings(mixes={"nowhere": "values"})).update(model_of(), TEXTS)
    with pytest.raises(InputError, match="squares must be left out for a StateSizeMetric, where it does not act"):
        StateSizeMetric(Settings(squares=True))
