"""`statesize profile`: results, bad input, and an interrupt."""

import json
import os
import shutil
import signal

import pytest

from statesize.cli import main
from statesize.profiling import Profile


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(arguments, capsys):
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("statesize: error: ")
    assert "Traceback" not in captured.err
    return captured.err


def test_table_profile_and_report(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result", "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines() if line.strip()]
    assert [row[:2] for row in rows[-2:]] == [["small", "layers.0.mixer"], ["small", "layers.1.mixer"]]
    assert "profiling small" in captured.err
    assert sorted(os.listdir(here)) == ["page.html", "result"]
    profile = Profile.load("result")
    assert profile.model == "small"
    assert profile.tokens["tokens"].values[0, -1] == "<eos>"
    assert profile.tokens["special"].values.sum() == 2


def test_json_is_one_document_on_stdout(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--json", "--output", "result"]) == 0
    document = json.loads(capsys.readouterr().out)
    profile = Profile.load("result")
    summary = profile.summary().to_dict("records")
    assert document["schema"] == 1
    assert (document["model"], document["sequences"], document["result"]) == ("small", 1, "result")
    assert document["tokens"] == int(profile.tokens["length"].values[0])
    assert document["skipped"] == []
    for mixer, row in zip(document["mixers"], summary, strict=True):
        assert mixer["name"] == row["layer"]
        assert mixer["average_entropy"] == pytest.approx(row["average_entropy"])
        assert mixer["average_relative_tolerance"] == [pytest.approx(row["average_relative_tolerance"])]
        assert mixer["total_entropy"] == pytest.approx(row["total_entropy"])
        assert mixer["utilisation"] == pytest.approx(row["utilisation"])
        assert (mixer["kind"], mixer["units"], mixer["multiplicity"], mixer["state_size"]) == ("gla", 2, 4, 4)
        # Four numbers for each of eight channels, in float32.
        assert mixer["state_bytes"] == 4 * 8 * 4
        assert len(mixer["average_tolerance"]) == 1


def test_only_the_beginning_is_read(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--json", "--max-tokens", "5"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["tokens"] == 5
    assert "first 5 of" in captured.err
    assert os.listdir(here) == []


def test_no_such_model(text, here, capsys):
    message = refused(["profile", "state-spaces/mamba-130m", "--text", text], capsys)
    for part in ("state-spaces/mamba-130m", "sa, la, wla, gla", "hub"):
        assert part in message


def test_a_folder_without_a_checkpoint(tmp_path, text, here, capsys):
    assert "config.json" in refused(["profile", tmp_path, "--text", text], capsys)


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_a_missing_weights_file(copy, text, here, capsys):
    (copy / "model.safetensors").unlink()
    assert "model.safetensors" in refused(["profile", copy, "--text", text, "--output", "result"], capsys)
    assert os.listdir(here) == []


def test_a_truncated_weights_file(copy, text, here, capsys):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in refused(["profile", copy, "--text", text], capsys)


def test_a_config_of_another_version(copy, text, here, capsys):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"format": 99}))
    message = refused(["profile", copy, "--text", text], capsys)
    assert "config.json" in message
    assert "99" in message


def test_a_missing_or_damaged_tokenizer(copy, text, here, capsys):
    (copy / "tokenizer.json").write_text("{")
    assert "tokenizer.json" in refused(["profile", copy, "--text", text], capsys)
    (copy / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(["profile", copy, "--text", text], capsys)


def test_the_tokenizer_of_the_run_above_is_found(copy, text, here, capsys):
    run = copy.parent / "run"
    shutil.copytree(copy, run / "best")
    (run / "best" / "tokenizer.json").rename(run / "tokenizer.json")
    assert main(["profile", str(run / "best"), "--text", str(text)]) == 0


def test_text_that_is_not_utf8(checkpoint, text, here, capsys):
    text.write_bytes("café au lait".encode("latin-1"))
    message = refused(["profile", checkpoint, "--text", text, "--output", "result"], capsys)
    assert "UTF-8" in message
    assert os.listdir(here) == []


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_empty_text(checkpoint, text, here, capsys, content):
    text.write_text(content)
    refused(["profile", checkpoint, "--text", text], capsys)


def test_missing_text(checkpoint, here, capsys):
    assert "nowhere.txt" in refused(["profile", checkpoint, "--text", "nowhere.txt"], capsys)


@pytest.mark.parametrize(
    ("option", "place", "message"),
    [
        ("--output", "folder", "no profile"),
        ("--output", "file", "is a file"),
        ("--output", "missing/result", "cannot be written"),
        ("--html", "folder", "is a folder"),
        ("--html", "file/page.html", "cannot be written"),
    ],
)
def test_bad_places_are_refused_before_the_work(checkpoint, text, here, capsys, option, place, message):
    (here / "folder").mkdir()
    (here / "file").write_text("mine")
    errors = refused(["profile", checkpoint, "--text", text, option, place], capsys)
    assert message in errors
    assert "profiling" not in errors
    assert sorted(os.listdir(here)) == ["file", "folder"]
    assert (here / "file").read_text() == "mine"


def test_interrupt_leaves_earlier_results(slow_checkpoint, text, run):
    assert run("profile", slow_checkpoint, "--text", text, "--max-tokens", "8", "--output", "result").returncode == 0
    before = Profile.load(run.folder / "result")
    text.write_text("A longer text with many words. " * 60, encoding="utf-8")
    process = run.start("profile", slow_checkpoint, "--text", text, "--output", "result", "--html", "page.html")
    while "mixer 1 of 24" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("statesize: error: interrupted")
    assert os.listdir(run.folder) == ["result"]
    assert Profile.load(run.folder / "result").tree.identical(before.tree)
