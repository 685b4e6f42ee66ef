"""A size that is not known is said to be unknown wherever it stands, and no number takes its place."""

import json
import math
import re

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.cli.shared.summary import comparison_page, summary
from statesize.cli.shared.table import print_page
from statesize.report.comparison import compare

TOKENS = torch.arange(24)[None]


class Mixed(nn.Module):
    """A matrix of full rank, that tells no state."""

    def __init__(self):
        super().__init__()
        self.matrix = torch.rand(24, 24, generator=torch.Generator().manual_seed(0)).tril()

    def forward(self, hidden):
        return self.matrix[: hidden.shape[1]].to(hidden) @ hidden


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.mixed, self.gru = nn.Embedding(30, 8), Mixed(), nn.GRU(8, 8, batch_first=True)

    def forward(self, tokens):
        return self.gru(self.mixed(self.embedding(tokens)))[0]


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model()


@pytest.fixture(scope="module")
def profile(model):
    return ss.profile(model, TOKENS)


def test_tables_documents_and_sentences_say_unknown(profile, capsys, tmp_path):
    rows = profile.summary(wide=True)
    assert rows.tss.isna().tolist() == rows.state_bytes.isna().tolist() == [True, False]
    assert rows.cause.tolist() == ["Its state size is unknown.", ""]
    for wide, times in ((False, 1), (True, 3)):
        print_page(summary(profile, wide=wide))
        (line,) = (line for line in capsys.readouterr().out.splitlines() if re.match(r"(Model +)?mixed +", line))
        assert line.count("unknown") == times
    document = json.loads(json.dumps(profile.to_dict(), allow_nan=False))["mixers"][0]
    names = ("tss", "state_bytes", "state_utilisation", "ceiling_utilisation")
    assert [document[name] for name in names] == [None] * 4
    assert profile._repr_html_().count("<td>unknown</td>") == 1
    page = profile.to_html(tmp_path / "page.html").read_text()
    (row,) = (row for row in re.findall("<tr>.*?</tr>", page) if ">mixed<" in row and "data-value" in row)
    assert row.count('<td class="number" data-value="">unknown</td>') == 3
    assert profile.plot.layers().to_dict()["datasets"]["layers"][0]["tss"] == "unknown"
    loaded = ss.Profile.load(profile.save(tmp_path / "profile"))
    assert math.isnan(loaded.summary_rows()[0]["tss"])


def test_a_comparison_says_unknown(profile, capsys):
    compared = compare([profile])
    (row,) = compared.models
    assert all(map(math.isnan, (row.tss, row.total_tss, row.state_bytes)))
    print_page(comparison_page([profile], compared))
    assert re.search(r"Model .* unknown\n", capsys.readouterr().out)
