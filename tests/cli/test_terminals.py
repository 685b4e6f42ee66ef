"""What strangers name cannot steer a terminal, on any stream."""

import json
import re

import pytest
import xarray as xr

from statesize.cli import main
from statesize.codes import Code, Note
from statesize.io.text import printable
from statesize.profiling import Profile

EVIL = "a\x1b]0;owned\x07\x9b2J\u202eb\rc\u2028d\x00"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def evil(small_profile, tmp_path):
    """A profile whose names, tokens and notes would steer a terminal."""
    tree, note = small_profile.to_xarray(), Note(Code.NOT_MEASURED, EVIL).to_json()
    tree.attrs |= {"model": EVIL, "skipped": {EVIL: note}, "mixers": [f"{EVIL}0", f"{EVIL}1"], "source": {EVIL: EVIL}}
    root = tree.to_dataset()
    root["tokens"] = root["tokens"].copy(data=[[f"{EVIL}."] * root.sizes["token"]] * root.sizes["sequence"])
    about = {"kind": EVIL, "notes": [note], "engine": EVIL}
    children = {
        f"{EVIL}{index}": node.to_dataset().assign_attrs(about) for index, node in enumerate(tree.children.values())
    }
    tree = xr.DataTree(root, children={name: xr.DataTree(node) for name, node in children.items()})
    return Profile(tree).save(tmp_path / "evil")


@pytest.mark.parametrize("text", [EVIL, "\ud800", "\U000e0001", "tab\tand\nline"])
def test_what_is_hidden_is_shown_escaped(text):
    shown = printable(text)
    assert not STEERING.search(shown)
    assert json.loads(f'"{shown}"') == text
    assert printable("plain · σ₁ 中文 é") == "plain · σ₁ 中文 é"


@pytest.mark.parametrize("words", ["compare EVIL EVIL", "compare EVIL EVIL --json", "profile EVIL"])
def test_profiles(words, evil, capsys):
    assert main([str(evil) if word == "EVIL" else word for word in words.split()]) == 0
    captured = capsys.readouterr()
    for stream in (captured.out, captured.err):
        assert not STEERING.search(stream)
    assert "\\u001b]0;owned" in captured.out


def test_errors(evil, capsys):
    assert main(["profile", str(evil), "--positions", "3"]) == 2
    assert main(["lab", "study", f"none{EVIL[:-1]}"]) == 2
    assert main(["compare", EVIL[:-1]]) in {1, 2}
    assert not STEERING.search(capsys.readouterr().err)
