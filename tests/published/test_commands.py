"""What somebody who has a published model runs first, each command to its end."""

import json
import re
from pathlib import Path

import pytest
from published.packages import gguf_file

import statesize as ss
from statesize.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of other packages, when a command ends


def run(capsys, *arguments):
    """What a command that must succeed printed."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_pages_say_what_it_prints(capsys, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "language-models.md").read_text("utf-8")
    (headline,) = re.findall(r"^SmolLM2\S+ carries .*\.$", page, re.MULTILINE)
    printed = run(capsys, "profile", gguf_file(), "--output", tmp_path / "profile")
    assert headline in " ".join(printed.split())


def test_a_profile_its_page_and_a_comparison(capsys, folder, text, tmp_path):
    few = ("--text", text, "--sequences", 1, "--max-tokens", 24)
    first, second = tmp_path / "one", tmp_path / "two"
    printed = run(capsys, "profile", folder, *few, "--layers", 15, 29, "--output", first)
    assert "model.layers.15.self_attn" in printed
    assert "model.layers.15.self_attn" in run(capsys, "profile", first)
    (page,) = first.glob("*.html")
    assert "model.layers.29.self_attn" in page.read_text(encoding="utf-8")
    run(capsys, "profile", "gla", *few, "--output", second)
    assert len(json.loads(run(capsys, "compare", first, second, "--json"))["models"]) == 2
    assert ss.Profile.load(first).attributes["source"]["kind"] == "folder"


def test_truncate(capsys, folder):
    found = json.loads(run(capsys, "truncate", folder, "--sequences", 1, "--max-tokens", 32, "--json"))
    assert (found["mixers"], found["whole"]) == (30, [])
    lost = {(row["rule"], row["scale"]): row["divergence_share"]["mean"] for row in found["rows"]}
    assert lost["ess", 2.0] < lost["ess", 1.0] < lost["ess", 0.5] < 0.05
    assert {"joint ess", "joint past rows"} <= {rule for rule, _ in lost}
