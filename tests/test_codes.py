"""What limits a number stands in one list of codes, and no other file knows their sentences."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import statesize as ss
from statesize.codes import NOTHING_LOST, Code, Note
from statesize.measurement.statistics import ENOUGH_TOKENS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("code", Code)
def test_each_code_has_a_sentence_and_a_cure(code):
    assert code.sentence
    assert code.cure.endswith(".")
    assert Code(code.value) is code
    assert str(Note(code, "so")) == (code.sentence.replace("{}", "so") if "{}" in code.sentence else "so")
    assert Note.from_json(Note(code, "so").to_json()) == Note(code, "so")


def test_counts_in_sentences_are_those_of_the_code():
    assert f"{ENOUGH_TOKENS} tokens" in Code.SHORT_TEXT.cure


def test_no_other_file_knows_a_sentence():
    # A file that knew one could look for it in a text.
    starts = {code: max(code.sentence.split("{}"), key=len).strip()[:24] for code in Code}
    files = [path for path in (ROOT / "src").rglob("*.py") if path.name != "codes.py"]
    found = [(path.name, code) for path in files for code, start in starts.items() if start in path.read_text("utf-8")]
    assert found == []


def test_the_page_lists_all_codes():
    page = (ROOT / "docs" / "appendix" / "promises.md").read_text(encoding="utf-8")
    rows = [
        row.split(" | ") for row in re.findall(r"^\| `(.+) \|$", page.partition("## What limits a number")[2], re.M)
    ]
    assert rows == [[f"{code}`", code.sentence.replace("{}", "…"), code.cure] for code in Code]


class Attention(nn.Module):
    """Attention of two heads."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, hidden):
        parts = (part(hidden).unflatten(-1, (2, 8)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.values = nn.Linear(16, 16)

    def forward(self, hidden):
        return hidden + 0.0 * self.values(hidden).cumsum(1)


def test_a_layer_that_writes_nothing_is_named_and_not_counted():
    torch.manual_seed(0)
    model, frames = nn.Sequential(Attention(), Residual()), torch.randn(1, 24, 16)
    found, without = (ss.profile(one, frames, name="model") for one in (model, model[:1]))
    assert (found.mixers, found.not_measured) == (("0",), {})
    assert found.skipped == {"1": Note(Code.WRITES_NOTHING)}
    assert Code.WRITES_NOTHING in NOTHING_LOST
    # No number, and no line of the headline, the table or the page, is of the layer.
    pd.testing.assert_frame_equal(found.summary(), without.summary())
    assert (found.headline, repr(found)) == (without.headline, repr(without))
    assert found.page().tables == without.page().tables
