"""`statesize profile`: results, bad input, and an interrupt."""

import json
import os
import re
import sys

import pytest
import torch
from oracles.pretrained import save_tiny

from statesize.cli import main
from statesize.profiling import TOLERANCE_LADDER, Profile


def test_json_is_one_document_on_stdout(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--json", "--output", "result"]) == 0
    document = json.loads(capsys.readouterr().out)
    profile = Profile.load("result")
    summary = profile.summary().to_dict("records")
    assert document["schema"] == 1
    assert (document["model"], document["sequences"], document["folder"]) == ("small", 1, "result")
    assert document["tokens"] == int(profile.tokens["length"].values[0])
    assert document["lost"] == []
    assert tuple(document["relative_tolerances"]) == TOLERANCE_LADDER
    for mixer, row in zip(document["mixers"], summary, strict=True):
        assert (mixer["layer"], mixer["ceiling_utilisation"]) == (row["layer"], None)
        assert mixer["average_relative_count"][0] == pytest.approx(row["average_relative_count"])
        assert (mixer["kind"], mixer["units"], mixer["multiplicity"], mixer["tss"]) == ("gla", 2, 4, 4)
        # Four numbers for each of eight channels, and three tokens of 24 convolved channels, in float32.
        assert mixer["state_bytes"] == (4 * 8 + 3 * 24) * 4
        assert len(mixer["average_count"]) == 1


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [("café au lait".encode("latin-1"), 1, "utf-8"), (b"a\n\n", 2, "2 tokens of their own")],
)
def test_texts_that_say_nothing_are_refused(checkpoint, text, here, capsys, content, code, message):
    text.write_bytes(content)
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result"]) == code
    assert message in capsys.readouterr().err
    assert os.listdir(here) == []


def test_a_bad_place_is_refused_before_the_work(checkpoint, text, here, capsys):
    (here / "file").write_text("mine")
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "file"]) == 1
    errors = capsys.readouterr().err
    assert "is a file" in errors
    assert "profiling" not in errors
    assert (here / "file").read_text() == "mine"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with one model, and no network."""
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = tmp_path / "hub" / "models--someone--tiny"
    save_tiny(folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return commit


def test_a_model_of_the_hub_is_told_with_its_commit_and_the_command(hub, text, here, capsys, monkeypatch):
    command = ["profile", "someone/tiny", "--text", str(text), "--max-tokens", "8", "--sequences", "2"]
    monkeypatch.setattr("sys.argv", ["statesize", *command, "--output", "result"])
    assert main() == 0
    found = Profile.load("result")
    assert found.model == "someone/tiny"
    source = found.attributes["source"]
    assert (source["kind"], source["revision"], source["commit"]) == ("hub", "main", hub)
    assert (
        source["command"]
        == f"statesize profile someone/tiny --text {text} --max-tokens 8 --sequences 2 --output result"
    )


def test_an_interrupt_says_what_is_kept(checkpoint, text, here, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("statesize.profiling.profile_run.profile_bar", lambda *_: interrupt)
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result"]) == 130
    errors = capsys.readouterr().err
    kept = "what is finished is in result.units; the same command goes on from there"
    assert errors.splitlines()[-1] == f"statesize: error: interrupted; {kept}"


def test_a_package_that_is_missing_is_told(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("statesize.models.load.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(["profile", "gla", "--ray"]) == 1
    assert "Ray is not installed. Do pip install ray, or run without it." in capsys.readouterr().err


def test_table_folder_and_page(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text)]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines() if line.startswith("layers.")]
    assert {row[0] for row in rows} == {"layers.0.mixer", "layers.1.mixer"}
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    following = "statesize truncate MODEL (how much memory is enough?), statesize cache MODEL (what may a cache lose?)"
    assert captured.err.endswith(f"Profile: small-profile, page: small-profile/page.html\nNext: {following}\n")
    assert os.listdir(here) == ["small-profile"]
    found = Profile.load("small-profile")
    assert captured.out.startswith(found.headline)
    assert found.tokens["special"].values.sum() == 1


def test_a_model_of_transformers(tmp_path, text, here, capsys):
    folder = save_tiny(tmp_path / "llama", dtype=torch.bfloat16)
    assert main(["profile", str(folder), "--text", str(text), "--json", "--max-tokens", "20"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["source"]["weights"] == "bfloat16, run in float32"
    mixer = document["mixers"][0]
    assert (mixer["layer"], mixer["kind"], mixer["units"], mixer["tss"]) == (
        "model.layers.0.self_attn", "attention", 4, 19,
    )  # fmt: skip
    # Keys and values of two heads of eight numbers, in bfloat16.
    assert mixer["state_bytes"] == 2 * 2 * 8 * 20 * 2
    assert (0 < mixer["faithfulness"] < 1e-2, mixer["run_difference"]) == (True, 0)


def test_profile_has_at_most_eighteen_options(capsys):
    assert main(["profile", "--help"]) == 0
    assert len(re.findall(r"│ (?:\*  )?--", capsys.readouterr().out)) <= 18
