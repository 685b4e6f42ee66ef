"""What somebody who has a published model runs first, each command to its end."""

import json
import re
from pathlib import Path

import pytest
from oracles.published import gguf_file

import statesize as ss
from statesize.cli import main

LAYER = "model.layers.7.self_attn"

pytestmark = pytest.mark.filterwarnings("default")  # of other packages, when a command ends


def run(capsys, *arguments):
    """A command that must succeed, and what it printed."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said


@pytest.mark.slow
def test_its_file(capsys, text):
    few = ("--text", text, "--max-tokens", 32, "--layers", 3)
    said = run(capsys, "profile", gguf_file(), *few)
    assert "Q4_1, dequantised" in run(capsys, "profile", gguf_file(), *few, "--json").out
    assert re.search(r"^model\.layers\.3\.self_attn +\d", said.out, re.MULTILINE)


@pytest.mark.slow
def test_pages_say_what_it_prints(capsys, tmp_path):
    root = Path(__file__).parents[2]
    page, readme = ((root / name).read_text("utf-8") for name in ("docs/language-models.md", "README.md"))
    printed = " ".join(run(capsys, "profile", gguf_file(), "--html", tmp_path / "page.html").out.split())
    (headline,) = re.findall(r"^SmolLM2.* carries .*$", page, re.MULTILINE)
    (sinks,) = re.findall(r"^Attention sinks: .*\.$", page, re.MULTILINE)
    assert headline in printed
    assert sinks in printed
    (layers, of) = re.findall(r"in (\d+) of (\d+) layers", sinks)[0]
    assert 2 * int(layers) > int(of)
    assert "in most layers one token" in " ".join(readme.split())


@pytest.mark.slow
def test_profile_report_and_compare(capsys, folder, text, tmp_path):
    few = ("--text", text, "--sequences", 1, "--max-tokens", 24, "--layers", 15, 29)
    said = run(capsys, "profile", folder, *few, "--output", tmp_path / "one", "--html", tmp_path / "one.html")
    assert "model.layers.15.self_attn" in said.out
    run(capsys, "profile", tmp_path / "one", "--html", tmp_path / "again.html")
    for page in (tmp_path / "one.html", tmp_path / "again.html"):
        assert "model.layers.29.self_attn" in page.read_text(encoding="utf-8")
    run(capsys, "profile", "gla", "--text", text, "--sequences", 1, "--max-tokens", 24, "--output", tmp_path / "two")
    compared = json.loads(run(capsys, "compare", tmp_path / "one", tmp_path / "two", "--json").out)
    assert len(compared["models"]) == 2
    assert ss.Profile.load(tmp_path / "one").attributes["source"]["kind"] == "folder"


@pytest.mark.slow
def test_length(capsys, folder, text):
    lengths = ("--lengths", "16,32", "--future", 16, "--excerpts", 2)
    said = run(capsys, "length", folder, "--text", text, *lengths, "--layers", 7, "--channels", 1, "--json")
    found = json.loads(said.out)
    assert [one["length"] for one in found["lengths"]] == [16, 32]
    assert [layer["name"] for layer in found["layers"]] == ["average", *(LAYER + part for part in ("", ", joint"))]


@pytest.mark.slow
def test_delimiters(capsys, folder, tmp_path):
    config = tmp_path / "few.toml"
    config.write_text(f'models = ["{folder}"]\n[reading]\ndocuments = 6\nwindow = 8\nchannels = 1\n', encoding="utf-8")
    few = ("--config", config, "--output", tmp_path / "study")
    found = json.loads(run(capsys, "lab", "study", "delimiters", *few, "--json").out)
    assert found["figures"]["models"] == 1
    # A single model answers no question about all.
    assert found["holds"] is None
    assert (tmp_path / "study" / "study.html").is_file()


@pytest.mark.slow
def test_truncate(capsys, folder, tmp_path):
    page = tmp_path / "cut.html"
    said = run(capsys, "truncate", folder, "--sequences", 1, "--max-tokens", 32, "--html", page, "--json")
    found = json.loads(said.out)
    assert found["mixers"] == 30
    assert found["whole"] == []
    lost = {(row["rule"], row["scale"]): row["divergence_share"]["mean"] for row in found["rows"]}
    assert lost["ess", 2.0] < lost["ess", 1.0] < lost["ess", 0.5] < 0.05
    assert {"joint ess", "joint past rows"} <= {rule for rule, _ in lost}
    assert "carries, by cutting" in page.read_text(encoding="utf-8")
