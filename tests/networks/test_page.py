"""What is said to be normal of a network is on record, and is not said of texts that are too short to compare."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from statesize.networks.network import network_ess
from statesize.networks.page import FILLED, ON_RECORD, page

RECORD = Path(__file__).parents[2] / "results" / "networks" / "networks.json"


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.mixer = nn.Embedding(20, 2), nn.GRU(2, 2, batch_first=True)

    def forward(self, ids):
        return self.mixer(self.embedding(ids))[0]


def test_what_is_normal_is_on_record():
    rows = [row for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if row["model"] in ON_RECORD]
    assert {(row["tokens"], row["cut"], row["dimension"]) for row in rows} == {(344, 172, 172 * 128)}
    assert {row["model"]: f"{row['network'] / 128:.1f}" for row in rows} == {
        name: f"{carried:.1f}" for name, carried in ON_RECORD.items()
    }
    assert {row["model"] for row in rows if row["redundancy"] is not None} == {*FILLED}


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (14, ""),
        (64, ""),
        (344, "On record past token 172 of 344"),
    ],
)
def test_a_text_of_another_length_is_not_set_against_the_record(tokens, told):
    torch.manual_seed(0)
    result = network_ess(Recurrent(), torch.arange(tokens)[None] % 20, [tokens // 2], end="mixer", method="dense")
    lines = page("m", result, None).finding.splitlines()
    assert lines[0] == result.finding("m")
    assert ("fewer than 64 tokens bound what can pass" in lines[0]) == (tokens < 64)
    normal = [line for line in lines if line.startswith("What is normal? ")]
    assert len(normal) == bool(told)
    assert told in "".join(normal)
    assert ("gla 18.7" in "".join(normal)) == (tokens == 344)


def test_cuts_of_which_some_are_dense_have_a_page():
    result = network_ess(Recurrent(), torch.arange(8)[None] % 20, [4], end="mixer", method="dense")
    said = " ".join(page("m", replace(result, method="dense, lanczos"), None).notes["How to read this"])
    assert "so the number is exact. At other cuts: The number is estimated" in said
