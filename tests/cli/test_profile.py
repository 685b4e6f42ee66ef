"""`statesize profile`: results, bad input, and an interrupt."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pyarrow
import pytest
import torch
from oracles.pretrained import save_tiny
from pyarrow import parquet

from statesize.cli import main
from statesize.lab import zoo
from statesize.measurement.settings import Settings
from statesize.profiling import TOLERANCE_LADDER, Profile, profile
from statesize.report.words import OWN_TEXTS
from statesize.texts.tokens import encode


def refused(arguments, capsys, code=1):
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("statesize: error: ")
    assert "Traceback" not in captured.err
    return captured.err


def test_table_profile_and_report(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--output", "result", "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines() if line.strip()]
    assert [row[0] for row in rows if row[0].startswith("layers.")] == ["layers.0.mixer", "layers.1.mixer"]
    assert "profiling small" in captured.err
    assert sorted(os.listdir(here)) == ["page.html", "result"]
    profile = Profile.load("result")
    assert profile.model == "small"
    assert profile.tokens["tokens"].values[0, -1] == "<eos>"
    assert profile.tokens["special"].values.sum() == 1


def test_json_is_one_document_on_stdout(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--json", "--output", "result"]) == 0
    document = json.loads(capsys.readouterr().out)
    profile = Profile.load("result")
    summary = profile.summary(wide=True).to_dict("records")
    assert document["schema"] == 1
    assert (document["model"], document["sequences"], document["result"]) == ("small", 1, "result")
    assert document["tokens"] == int(profile.tokens["length"].values[0])
    assert document["skipped"] == {}
    assert tuple(document["relative_tolerances"]) == TOLERANCE_LADDER
    for mixer, row in zip(document["mixers"], summary, strict=True):
        assert mixer["layer"] == row["layer"]
        assert mixer["average_entropy"] == pytest.approx(row["average_entropy"])
        assert mixer["average_relative_count"][0] == pytest.approx(row["average_relative_count"])
        assert mixer["total_entropy"] == pytest.approx(row["total_entropy"])
        assert mixer["state_utilisation"] == pytest.approx(row["state_utilisation"])
        assert mixer["ceiling_utilisation"] is None
        assert (mixer["kind"], mixer["units"], mixer["multiplicity"], mixer["tss"]) == ("gla", 2, 4, 4)
        # Four numbers for each of eight channels, and three tokens of 24 convolved channels, in float32.
        assert mixer["state_bytes"] == (4 * 8 + 3 * 24) * 4
        assert len(mixer["average_count"]) == 1


@pytest.mark.few(1)
@pytest.mark.parametrize(("tokens", "tolerances"), [(1024, 10), (1025, 1)])
def test_short_texts_are_measured_at_many_tolerances_as_from_python(
    tokens, tolerances, checkpoint, tmp_path, here, capsys
):
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps([[1] * tokens]), encoding="utf-8")
    command = ["profile", str(checkpoint), "--ids", str(ids), "--json", "--positions", "2", "--max-tokens", str(tokens)]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["relative_tolerances"]
    assert len(found) == tolerances
    python = profile(str(checkpoint), [[1] * tokens], settings=Settings(positions=2))
    assert python.attributes["relative_tolerances"] == found


def test_only_the_beginning_is_read(checkpoint, text, here, capsys):
    assert main(["profile", str(checkpoint), "--text", str(text), "--json", "--max-tokens", "5"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["tokens"] == 5
    assert "first 5 of" in captured.err
    assert os.listdir(here) == []


def test_no_such_model(text, here, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused(["profile", "state-spaces/mamba-130m", "--text", text], capsys)
    for part in ("state-spaces/mamba-130m", "sa, la, gla, gated-deltanet", "hub"):
        assert part in message
    assert len(message.splitlines()) == 1


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
    assert "has no tokenizer." in refused(["profile", copy, "--text", text], capsys)


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


@pytest.mark.parametrize(
    ("option", "place", "message"),
    [
        ("--output", "folder", "which holds something else"),
        ("--output", "file", "is a file"),
        ("--output", "missing/result", "Make missing, or"),
        ("--html", "folder", "is a folder"),
        ("--html", "file/page.html", "Move file, a file, or"),
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


def test_interrupt_leaves_earlier_results(slow_checkpoint, text, run, monkeypatch):
    monkeypatch.chdir(run.folder)
    assert main(["profile", str(slow_checkpoint), "--text", str(text), "--max-tokens", "8", "--output", "result"]) == 0
    before = Profile.load("result")
    text.write_text("A longer text with many words. " * 20, encoding="utf-8")
    process = run.start("profile", slow_checkpoint, "--text", text, "--output", "result", "--html", "page.html")
    while "mixer 1 of 10" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("statesize: error: interrupted")
    assert "result.units" in errors
    assert sorted(os.listdir()) == ["result", "result.units"]
    assert Profile.load("result").tree.identical(before.tree)


def documents_of(capsys):
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_a_model_of_transformers(tmp_path, text, here, capsys):
    folder = save_tiny(tmp_path / "llama", dtype=torch.bfloat16)
    assert main(["profile", str(folder), "--text", str(text), "--json", "--max-tokens", "20", "--channels", "2"]) == 0
    document, _ = documents_of(capsys)
    stored = {"kind": "folder", "weights": "bfloat16, run in float32"}
    assert document["model"] == "llama"
    assert stored.items() <= document["source"].items()
    mixer = document["mixers"][0]
    assert (mixer["layer"], mixer["kind"]) == ("model.layers.0.self_attn", "attention")
    assert (mixer["units"], mixer["measured"], mixer["multiplicity"], mixer["tss"]) == (4, 2, 8, 19)
    # Keys and values of two heads of eight numbers, in bfloat16.
    assert mixer["state_bytes"] == 2 * 2 * 8 * 20 * 2
    assert 0 < mixer["faithfulness"] < 1e-2
    assert mixer["run_difference"] == 0
    assert 0 < mixer["average_entropy_error"] < mixer["average_entropy"]
    assert main(["profile", str(folder), "--text", str(text), "--channels", "2", "--wide"]) == 0
    out = capsys.readouterr().out
    for part in ("2 of 4", "±", "bytes", "to model"):
        assert part in out


def test_texts_that_pass_the_longest_context_are_noted(tmp_path, here, capsys):
    folder = save_tiny(tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 20}
    (folder / "config.json").write_text(json.dumps(config))
    told = "texts of 24 tokens pass the longest context that the model names, of 20"
    for count in (20, 24):
        assert main(["profile", str(folder), "--max-tokens", str(count), "--html", "page.html"]) == 0
        assert (f"note: {told}." in " ".join(capsys.readouterr().out.split())) == (count == 24)
        assert (told in Path("page.html").read_text(encoding="utf-8")) == (count == 24)


def test_sequences_of_different_lengths(checkpoint, text, tmp_path, here, capsys):
    lines = ['{"body": "One text."}', "damaged", '{"body": "Another, and longer text."}', '{"body": ""}', '{"x": 1}']
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = ["profile", str(checkpoint), "--jsonl", str(tmp_path / "texts.jsonl"), "--field", "body", "--json"]
    assert main(command) == 0
    document, errors = documents_of(capsys)
    assert document["sequences"] == 2
    assert "Left out 3:" in errors
    assert "line 2: no JSON" in errors
    assert main([*command, "--sequences", "1"]) == 0
    assert documents_of(capsys)[0]["sequences"] == 1
    assert main(["profile", str(checkpoint), "--text", str(text), "--text", str(text), "--json"]) == 0
    assert documents_of(capsys)[0]["sequences"] == 2


def test_a_data_set(checkpoint, tmp_path, here, capsys):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["One text.", "Another, and longer text."]}).save_to_disk(str(tmp_path / "set"))
    capsys.readouterr()
    command = ["profile", str(checkpoint), "--dataset", str(tmp_path / "set"), "--json"]
    assert main(command) == 0
    assert documents_of(capsys)[0]["sequences"] == 2


def test_parquet_rows_are_sequences(checkpoint, tmp_path, here, capsys):
    table = pyarrow.table({"body": ["One text.", None, "Another, and longer text."]})
    parquet.write_table(table, tmp_path / "texts.parquet")
    command = ["profile", str(checkpoint), "--parquet", str(tmp_path / "texts.parquet"), "--field", "body", "--json"]
    assert main(command) == 0
    document, errors = documents_of(capsys)
    assert document["sequences"] == 2
    assert "Left out 1:" in errors
    assert "row 2" in errors


def test_a_prefix_is_measured_where_it_ends(checkpoint, text, tmp_path, here, capsys):
    prefix = tmp_path / "prefix.txt"
    prefix.write_text("Answer briefly. ", encoding="utf-8")
    before = encode(zoo.tokenizer(), "Answer briefly. ")
    asked = ["profile", str(checkpoint), "--text", str(text), "--prefix", str(prefix), "--future", "4"]
    assert main([*asked, "--output", "behind", "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    assert f"The prefix ends before token {len(before)}." in captured.err
    carried = f"ESS: numbers per channel that the layer carries past token {len(before)} of "
    assert carried in " ".join(captured.out.split())
    assert "middle of" not in captured.out
    own = f"{OWN_TEXTS}: at least 5 texts of yours, one in each row"
    said = f"suffice without the prefix, this tests ({own}): statesize truncate {checkpoint} --jsonl {OWN_TEXTS}"
    assert said in " ".join(captured.out.split())
    page = Path("page.html").read_text(encoding="utf-8")
    assert "at one cut of each text, which the first line names," in page
    assert "at the middle of" not in page
    found = Profile.load("behind")
    assert found.tokens["token_ids"].values[0, : len(before)].tolist() == before
    assert found.mixer("layers.0.mixer")["position"].values.tolist() == [len(before)]
    assert main([*asked, "--positions", "all", "--output", "whole"]) == 0
    whole = Profile.load("whole").mixer("layers.0.mixer")["entropy"].sel(position=len(before))
    assert found.mixer("layers.0.mixer")["entropy"].sel(position=len(before)).values == pytest.approx(whole.values)
    assert main(["profile", "gla", "--prefix", "nowhere.txt"]) == 1
    assert "nowhere.txt: cannot be read as a text file: No such file" in capsys.readouterr().err


def test_the_test_of_a_profile_of_very_few_tokens_can_be_made(checkpoint, here, capsys):
    assert main(["profile", str(checkpoint), "--max-tokens", "2", "--sequences", "1"]) == 0
    command = shlex.split(" ".join(capsys.readouterr().out.split()).partition("this tests: statesize ")[2])
    assert command == ["truncate", str(checkpoint), "--max-tokens", "4"]
    assert main([*command, "--quiet"]) == 0


def test_windows_are_in_the_profile(checkpoint, text, here, capsys):
    arguments = ["--past", "5", "--future", "4", "--output", "result", "--html", "page.html", "--json"]
    assert main(["profile", str(checkpoint), "--text", str(text), *arguments]) == 0
    document, _ = documents_of(capsys)
    assert (document["settings"]["past"], document["settings"]["future"]) == (5, 4)
    mixer = Profile.load("result").mixer("layers.0.mixer")
    assert (mixer["ceiling"].values == 4).all()
    assert mixer["position"].values[0] == 5
    assert main(["profile", str(checkpoint), "--text", str(text), "--past", "900"]) == 2
    assert "--past and --future must fit into the longest sequence" in capsys.readouterr().err


def test_a_tokenizer_without_an_end_of_sequence_token(tmp_path, text, here, capsys):
    folder = save_tiny(tmp_path / "llama", eos=False)
    assert "no end-of-sequence token" in refused(["profile", folder, "--text", text, "--corpus"], capsys, 2)


@pytest.mark.parametrize("content", ["a", "a\n\n"])
def test_a_text_of_one_letter_is_refused_though_special_tokens_stand_around_it(content, checkpoint, text, here, capsys):
    text.write_text(content)
    assert "2 tokens of their own" in refused(["profile", checkpoint, "--text", text], capsys, 2)


def test_blank_lines_part_documents_on_request_alone_and_either_is_told(checkpoint, text, here, capsys):
    text.write_text("A state of its past.\n\nAnother text.\n", encoding="utf-8")
    lengths = []
    for option in ([], ["--corpus"]):
        assert main(["profile", str(checkpoint), "--text", str(text), "--output", f"out{len(option)}", *option]) == 0
        said = capsys.readouterr().err
        assert ("Blank lines part documents: 1 became '<eos>'." in said) == bool(option)
        assert ("if its blank lines part several, give --corpus." in said) == (not option)
        found = Profile.load(f"out{len(option)}")
        lengths.append(int(found.tokens["special"].values.sum()))
    assert lengths == [1, 2]
    assert "corpus must come with text" in refused(["profile", checkpoint, "--corpus"], capsys, 2)


@pytest.mark.slow
def test_the_same_command_goes_on(slow_checkpoint, text, run, monkeypatch, capsys):
    text.write_text("A longer text with many words. " * 60, encoding="utf-8")
    command = ["profile", slow_checkpoint, "--text", text, "--max-tokens", "48", "--output", "result"]
    process = run.start(*command)
    while len(list(run.folder.rglob("*.unit"))) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert os.listdir(run.folder) == ["result.units"]
    monkeypatch.chdir(run.folder)
    assert main([str(word) for word in command]) == 0
    errors = capsys.readouterr().err.splitlines()
    kept = next(line for line in errors if "kept from an earlier run" in line)
    assert int(kept.split(":")[1].split()[0]) >= 3
    assert os.listdir() == ["result"]


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


def test_a_model_of_the_hub_is_told_with_its_commit_and_the_command(hub, text, here, capsys):
    command = ["profile", "someone/tiny", "--text", str(text), "--max-tokens", "8", "--sequences", "2"]
    assert main([*command, "--output", "result"]) == 0
    found = Profile.load("result")
    assert found.model == "someone/tiny"
    source = found.attributes["source"]
    assert (source["kind"], source["revision"], source["commit"]) == ("hub", "main", hub)
    assert (
        source["command"]
        == f"statesize profile someone/tiny --text {text} --max-tokens 8 --sequences 2 --output result"
    )
    # One text would give no verdict.
    assert source["test"] == "statesize truncate someone/tiny --jsonl TEXTS.jsonl --max-tokens 8"


@pytest.mark.parametrize("output", [[], ["--output", "result"]])
def test_an_interrupt_says_what_is_kept(output, checkpoint, text, here, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("statesize.profiling.profile_run.profile_bar", lambda *_: interrupt)
    assert main(["profile", str(checkpoint), "--text", str(text), *output]) == 130
    errors = capsys.readouterr().err
    kept = "what is finished is in result.units; the same command goes on from there" if output else "nothing was kept"
    assert errors.splitlines()[-1] == f"statesize: error: interrupted; {kept}"
    for command in ("profile ./result", "compare result result"):
        assert main(command.split()) == 1
        errors = capsys.readouterr().err
        told = "Finished parts of a profile are in result.units: the command that began it goes on from there."
        assert (told in errors) == bool(output)


def test_an_interrupt_behind_a_profile_says_where_that_is(checkpoint, text, here, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("statesize.report.write_report", interrupt)
    command = ["profile", str(checkpoint), "--text", str(text), "--max-tokens", "8", "--output", "result"]
    assert main([*command, "--html", "page.html"]) == 130
    ended = capsys.readouterr().err.splitlines()[-1]
    assert ended == "statesize: error: interrupted; what is finished is in result; the same command goes on from there"
    # One that ends before it has kept anything says nothing of the folders of the last.
    monkeypatch.setattr("statesize.cli.shared.texts.Texts.load", interrupt)
    assert main(command) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("nothing was kept")


def test_a_model_is_all_that_is_needed(here, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    options = ["--layers", "0", "layers.2.mixer", "--positions", "3", "--tolerance", "0.05", "--sequences", "1"]
    assert main(["profile", "gla", *options, "--metric", "relative_count", "--open"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Gated linear attention carries ")
    assert " numbers per channel past token 256 of 512, of the " in captured.out
    assert "σ > 0.05 σ₁" in captured.out
    assert [line.split()[0] for line in captured.out.splitlines() if line.startswith("layers.")] == [
        "layers.0.mixer",
        "layers.2.mixer",
    ]
    assert "Reading bundled documents; --text FILE reads yours." in captured.err
    assert os.listdir(here) == ["gla.html"]
    assert opened == [(here / "gla.html").absolute().as_uri()]


def test_where_nothing_was_written_the_next_step_keeps_the_profile(checkpoint, here, capsys):
    command = ["profile", str(checkpoint), "--sequences", "1", "--positions", "2"]
    assert main(command) == 0
    told = capsys.readouterr().err.splitlines()[-1]
    again = shlex.join([*command, "--output", f"{checkpoint.name}-profile"])
    assert re.fullmatch(
        rf"next \(measures it again, about \d+ s after loading, and keeps it\): statesize {re.escape(again)}", told
    )
    assert os.listdir(here) == []


def test_a_package_that_is_missing_is_told(here, capsys, monkeypatch):
    for name in ("ray", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "is not installed: pip install datasets." in refused(["profile", "gla", "--dataset", "some/set"], capsys)
    monkeypatch.setattr("statesize.models.load.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    said = "Ray is not installed; pip install ray, or run without it"
    assert said in refused(["profile", "gla", "--ray"], capsys)


def test_a_misspelt_folder_names_its_neighbour_and_asks_no_hub(checkpoint, here, capsys, monkeypatch):
    shutil.copytree(checkpoint, here / "my-model")
    monkeypatch.setattr("statesize.models.from_transformers._transformers", lambda _: pytest.fail("the hub was asked"))
    for name in ("my-modle", "./my-modle", str(here / "my-modle")):
        assert "Did you mean " in refused(["profile", name], capsys)
    assert "Did you mean gla?" in refused(["profile", "glaa"], capsys)
    assert "Give a folder that is there." in refused(["profile", "./nothing-like-it"], capsys)
    assert "which is no file. Give a file that is there." in refused(["profile", "nothing.gguf"], capsys)
    (here / "model-Q4.gguf").touch()
    assert f"Did you mean {here}/model-Q4.gguf?" in refused(["profile", f"{here}/model_Q4.gguf"], capsys)
