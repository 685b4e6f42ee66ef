"""Models that are read again and again: what their next reading is compared with."""

import math

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize.adapters import CheckPolicy
from statesize.integrations.probe import Probe, Probing
from statesize.measurement.settings import Settings
from statesize.profiling import profile


def test_all_at_first_and_when_a_module_or_a_dtype_changes():
    model, checking = attention_model("llama"), CheckPolicy("none")
    assert [checking.for_run(model) for _ in range(3)] == ["all", "none", "none"]
    model.model.layers[1].mlp = nn.Identity()
    assert [checking.for_run(model) for _ in range(2)] == ["all", "none"]
    model.to(torch.bfloat16)
    assert [checking.for_run(model) for _ in range(2)] == ["all", "none"]
    with torch.no_grad():
        model.lm_head.weight += 1
    assert checking.for_run(model) == "none"


@pytest.fixture
def counted():
    model, runs = attention_model("llama"), []
    model.model.register_forward_hook(lambda *_: runs.append(1))
    return model, runs


def test_a_probe_runs_the_unaltered_model_at_its_first_reading(counted):
    model, runs = counted
    probing = Probing(Probe(token_ids(1), every=1, share=math.inf, settings=Settings(positions=2)))
    found = [len(runs) for step in range(2) if probing.step(model, step) is not None]
    assert found == [3, 4]


def test_a_profile_reads_every_sequence_with_hooks_and_the_first_without(counted):
    model, runs = counted
    found = profile(model, token_ids(3), positions=2)
    assert len(runs) == 3 + 2 + 2
    assert {row["run_difference"] for row in found.summary_rows()} == {0}
