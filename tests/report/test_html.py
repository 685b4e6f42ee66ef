"""The report's page: self-contained, escaped, and the same bytes for the same profiles."""

import base64
import hashlib
import os
import re
from html.parser import HTMLParser

import pytest
import torch

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.report import head_map as extent
from statesize.report import page as html
from statesize.report.head_map import SCRIPTS
from statesize.report.result_page import resource


class Page(HTMLParser):
    """Tags, scripts and text of a page, read as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            attributes, script = self.scripts[-1]
            self.scripts[-1] = (attributes, script + data)
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def text(hostile_profile):
    return html.page([hostile_profile]).render()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_policy_names_exactly_the_scripts_that_are_there(page):
    (policy,) = [
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = dict(directive.split(None, 1) for directive in policy.split(";") if directive.strip())
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in directives["script-src"]
    scripts = [script for attributes, script in page.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert directives["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]


def test_nothing_is_loaded(page):
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "base", "img", "audio", "video"}
        assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        assert not [name for name in attributes if name.startswith("on")]


def test_names_and_tokens_stay_text(page, hostile_profile):
    # The name is a tag that would run a script; all that is left of it is text.
    assert hostile_profile.model in "".join(page.text)
    assert [tag for tag, _ in page.tags].count("script") == 5 + len(SCRIPTS)
    assert "img" not in {tag for tag, _ in page.tags}


def test_table_has_every_layer_and_definition(page, hostile_profile):
    text = " ".join(page.text)
    for layer in hostile_profile.mixers:
        assert layer in text
    # In the table, and with what it says.
    for heading in ("TSS", "average ESS", "total ESS", "norm", "average share of state"):
        assert text.count(heading) >= 2
    for digest in ("weights_sha256", "tokens_sha256"):
        assert hostile_profile.attributes[digest] in text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)


def test_same_profiles_same_bytes_and_a_file_is_replaced_whole(text, hostile_profile, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert html.page([hostile_profile]).write(path) == path
    assert path.read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["report.html"]


def test_scripts_evaluate_nothing():
    for name in ("draw.js", "result.js", "table.js", *SCRIPTS):
        code = resource(name)
        assert "innerHTML" not in code
        assert "eval(" not in code
        assert "Function(" not in code
    assert "ast: true" in resource("draw.js")


def extent_notes(text):
    return text[: text.index('<script type="application/json"')]


def test_what_is_not_drawn_is_said(monkeypatch):
    model = LanguageModel(ModelConfig("la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    three = profile(model, torch.arange(30).reshape(3, 10) % 8)
    for points, said in ((60, "the first 2 of 3 sequences."), (10, "the first 1 of 3 sequences, one position in 3.")):
        monkeypatch.setattr(extent, "POINTS", points)
        assert f"Drawn: {said}" in extent_notes(html.page([three]).render())
