"""Layers that are measured by their derivative are not ranked with those that have a T."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.report.words import model_line, reading


class Averaging(nn.Module):
    """A running mean of a projection."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(6, 6)

    def forward(self, hidden):
        return self.value(hidden).cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


class Hybrid(nn.Module):
    """A running mean and a GRU."""

    def __init__(self, averages):
        super().__init__()
        self.embedding, self.gru = nn.Embedding(40, 6), nn.GRU(6, 6, batch_first=True)
        self.average = Averaging() if averages else nn.Identity()

    def forward(self, tokens):
        return self.gru(self.average(self.embedding(tokens)))[0]


@pytest.fixture(scope="module", params=[True, False], ids=["hybrid", "alone"])
def profiled(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param, ss.profile(Hybrid(request.param), torch.arange(20)[None])


def test_averages_are_of_layers_that_compare(profiled):
    hybrid, profile = profiled
    rows = {row["layer"]: row for row in profile.summary_rows()}
    assert rows["gru"]["kind"] == "derivative"
    expected = rows["average" if hybrid else "gru"]["average_entropy"]
    (model,) = ss.compare([profile]).models
    assert model.average_entropy == pytest.approx(expected)
    assert f"carries {expected:.1f} numbers" in model_line(profile)


def test_what_is_left_out_is_said(profiled):
    hybrid, profile = profiled
    reason = "Left out here, as it has no T and is measured by its derivative: gru." if hybrid else "of the whole layer"
    assert any(reason in said for said in reading([profile]))
    assert any(reason in note for note in ss.compare([profile]).notes)
