"""Models that are read again and again: what their next reading is compared with."""

import math

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize.integrations.probe import Probe, Probing
from statesize.operators import Recurrence
from statesize.profiling import profile


@pytest.fixture
def counted():
    model, runs = attention_model("llama"), []
    model.model.register_forward_hook(lambda *_: runs.append(1))
    return model, runs


def test_a_profile_reads_every_sequence_with_hooks_and_the_first_without(counted):
    model, runs = counted
    found = profile(model, token_ids(3), positions=2)
    assert len(runs) == (3 + 2) + 2 + 2
    assert {row["run_difference"] for row in found.summary_rows()} == {0}


class Summing(nn.Module):
    """Adds up what it takes, says so by its operator, and may look ahead all the same."""

    ahead = False

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.cumsum(1) + (hidden.mean(1, keepdim=True) if self.ahead else 0)

    def operator(self, hidden: torch.Tensor) -> Recurrence:
        return Recurrence(*(hidden.new_ones(len(hidden), 1, hidden.shape[1], 1) for _ in range(3)))


@pytest.fixture
def summing():
    model = nn.Sequential(nn.Embedding(50, 4), Summing(), Summing())
    return model, torch.randint(50, (2, 24), generator=torch.Generator().manual_seed(0))


def test_a_layer_that_fails_in_one_sequence_is_compared_in_the_next(summing, caplog):
    model, ids = summing
    model[1].ahead = True
    # What one reading found of a layer must not spare the next one its comparison.
    Probing(Probe(ids, every=1, share=math.inf)).step(model, 0)
    model[1].ahead = False
    probing = Probing(Probe(ids, every=1, share=math.inf))
    assert probing.step(model, 0)["ess/layers"] == 2
    model[1].ahead = True
    again = Probing(Probe(ids, every=1, share=math.inf))
    caplog.clear()
    assert again.step(model, 0)["ess/layers"] == 1
    assert "1 was not measured: Mixer 1 must be causal" in caplog.text
    assert again.step(model, 1)["ess/layers"] == 1
