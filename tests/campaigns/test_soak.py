"""Profile calls on mixed models in one process leave nothing behind; a slow test goes on for ten minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracles.attention_models import attention_model

from campaigns.soak.calls import Soak, slope
from campaigns.soak.traces import Held, functions, hooks, replaced
from statesize.adapters.replaced import source_files

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "campaigns.soak"]
MEBIBYTE = 2**20


@pytest.mark.filterwarnings("ignore")
def test_some_calls_leave_nothing_behind():
    soak = Soak(names=("recall-gla", "llama"))
    soak.warm_up()
    before = Held.now()
    for _ in range(4):
        for name in soak.names:
            soak.call(name)
    after = Held.now()
    assert soak.left == []
    assert (after.threads, after.descriptors, after.modules) == (before.threads, before.descriptors, before.modules)
    assert after.resident - before.resident < 64 * MEBIBYTE
    assert soak.calls == 8
    assert sum(soak.answered.values()) + sum(soak.refused.values()) == 8


@pytest.mark.filterwarnings("ignore")
def test_calls_are_made_again():
    one, other = (Soak(seed=4, names=("recall-la",)) for _ in range(2))
    for soak in (one, other):
        for _ in range(3):
            soak.call("recall-la")
    assert (one.answered, one.refused) == (other.answered, other.refused)


def test_hooks_and_functions_that_stay_are_noticed(monkeypatch):
    model = attention_model("llama")
    number, meant = hooks(model), functions(model)
    assert replaced(meant, functions(model)) == []
    with model.register_forward_hook(lambda *_: None):
        assert hooks(model) == number + 1
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert hooks(model) == number + 1
    assert hooks(model) == number
    file = next(file for file in source_files(model) if hasattr(file, "eager_attention_forward"))
    monkeypatch.setattr(file, "eager_attention_forward", lambda *_: None)
    assert replaced(meant, functions(model)) == [f"{file.__name__}.eager_attention_forward"]


def test_growth_is_noticed():
    flat, growing = ([(60.0 * k, k, Held(10**9 + rate * k, 1, 1, 1)) for k in range(20)] for rate in (0, 1000))
    assert slope(flat) == (0, 0)
    assert slope(growing)[0] == pytest.approx(60_000)
    assert slope(flat[:2])[0] != slope(flat[:2])[0]


def soak_command(path, seconds):
    every = seconds / 10
    command = [*COMMAND, "--seconds", str(seconds), "--every", str(every), "--output", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_ten_minutes(tmp_path):
    document = soak_command(tmp_path / "soak.json", 600)
    assert document["left"] == []
    for name in ("threads", "descriptors", "modules"):
        assert document["end"][name] == document["start"][name]
    assert document["end"]["resident"] - document["start"]["resident"] < 64 * MEBIBYTE
