"""The page's file: a policy of its own scripts, text that stays text, and the same bytes for the same profiles."""

import base64
import hashlib
import os
import re

import pytest
import torch

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.report import head_map as extent
from statesize.report import page as html
from statesize.report.head_map import SCRIPTS


@pytest.fixture(scope="module")
def text(hostile_profile):
    return html.page([hostile_profile]).render()


def test_policy_names_exactly_the_scripts_that_are_there(text):
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="(.*?)">', text)
    directives = dict(directive.split(None, 1) for directive in policy.split(";"))
    assert directives["default-src"] == "'none'"
    scripts = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert directives["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    # Vega, draw.js, result.js and table.js; names and tokens that are tags add none.
    assert len(scripts) == 4 + len(SCRIPTS)


def test_table_has_every_layer_definition_and_digest(text, hostile_profile):
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    # In the table, and with what it says.
    for heading in ("TSS", "average ESS", "total ESS", "norm", "average share of state"):
        assert shown.count(heading) >= 2
    digests = (hostile_profile.attributes[name] for name in ("weights_sha256", "tokens_sha256"))
    assert all(known in shown for known in (*hostile_profile.mixers, *digests))
    assert not re.search(r"\b(nan|NaN|None|inf)\b", shown)
    assert "<img src" not in shown


def test_same_profiles_same_bytes_and_a_file_is_replaced_whole(text, hostile_profile, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert html.page([hostile_profile]).write(path) == path
    assert path.read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["report.html"]


def test_what_is_not_drawn_is_said(monkeypatch):
    model = LanguageModel(ModelConfig("la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    three = profile(model, torch.arange(30).reshape(3, 10) % 8)
    for points, said in ((60, "the first 2 of 3 sequences."), (10, "the first 1 of 3 sequences, one position in 3.")):
        monkeypatch.setattr(extent, "POINTS", points)
        assert f"Drawn: {said}" in html.page([three]).charts[0].caption
