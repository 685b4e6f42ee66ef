"""`statesize study delimiters` and `study recall`: documents, files, and bad input."""

import json

import pandas as pd
import pytest

from statesize.cli import main
from statesize.lab import zoo

COMMON = ["--window", "4", "--channels", "2"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": text[:120]}) for text in zoo.documents()[:12]]
    path.write_text("\n".join([*lines[:4], '{"text": ', *lines[4:]]), encoding="utf-8")
    return path


def test_the_document_of_delimiters_and_its_files(checkpoint, documents, tmp_path, capsys):
    command = ["study", "delimiters", str(checkpoint), "--text", str(documents), "--output", "found", "--json", *COMMON]
    assert main(command) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["study"], document["preset"], document["runs"]) == ("delimiters", "documents.jsonl", 1)
    assert len([name for name in document["figures"] if name.startswith("control_small_")]) == 4
    assert document["holds"] is None
    assert [line.partition(": ")[0].rpartition("/")[2] for line in document["left_out"]] == ["documents.jsonl, line 5"]
    assert "Left out 1" in err
    table = pd.read_parquet(tmp_path / document["table"])
    assert set(table["layer"]) == {"all", "layers.0.mixer", "layers.1.mixer"}
    assert set(pd.read_parquet(tmp_path / "found" / "curves.parquet")["condition"]) == set(table["condition"])
    assert "small" in (tmp_path / "found" / "study.html").read_text(encoding="utf-8")
    again = ["study", "recall", str(checkpoint), "--text", str(documents), "--output", "found", *COMMON]
    assert main(again) == 1
    assert "holds results of the study 'delimiters'" in capsys.readouterr().err


def test_the_document_of_recall_names_its_models(checkpoint, documents, capsys):
    command = ["study", "recall", str(checkpoint), "--text", str(documents), "--length", "64", "--json", *COMMON]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["holds"] is None
    (model,) = document["models"]
    assert model["name"] == "small"
    assert model["recall_perplexity"] > 1
    assert document["figures"]["small_recall_perplexity"] == pytest.approx(model["recall_perplexity"])


def test_sentences_are_documents_where_full_stops_are_the_delimiter(checkpoint, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"Sentence number {k} is about memory and what a state may hold." for k in range(12)))
    assert main(["study", "delimiters", str(checkpoint), "--text", str(text), "--delimiter", "stop", *COMMON]) == 0
    out = capsys.readouterr().out
    assert "The delimiter is 'stop'; past and future are 4 tokens." in out
    assert "Caveats" in out


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"one\n\ntwo", ["--delimiter", "<|im_end|>"], ["no delimiter '<|im_end|>'", "special tokens are <eos>"]),
        (b"one two\n\nthree", ["--delimiter", "stop"], ["The text has no delimiter 'stop'"]),
        (b"one two three", [], ["at least 2 documents, got 1"]),
        (b"one\n\ntwo\n\nthree", [], ["Half of the 3 documents", "smallest window needs"]),
        (b"one\n\ntwo\n\nthree", ["--window", "8"], ["Fewer than 2 delimiters", "20 tokens or more"]),
        ("größer\n\n".encode() + "größer".encode("latin-1"), [], ["not UTF-8 text", "byte offset 12"]),
        (None, [], ["cannot be read"]),
    ],
)
def test_bad_texts_are_one_clear_line(checkpoint, tmp_path, capsys, content, options, words):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    assert main(["study", "delimiters", str(checkpoint), "--text", str(text), *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert [word for word in words if word not in err] == []


def test_a_model_named_twice_is_refused(capsys):
    assert main(["study", "delimiters", "sa", "sa"]) == 1
    assert "models must differ, got sa, sa" in capsys.readouterr().err


def test_a_window_of_nothing_is_wrong_usage():
    assert main(["study", "delimiters", "sa", "--window", "0"]) == 2


def test_a_plan_measures_a_sample_and_writes_nothing(checkpoint, documents, tmp_path, capsys):
    command = ["study", "delimiters", str(checkpoint), "--text", str(documents), "--plan", *COMMON]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (plan,) = document["plans"]
    assert (plan["model"], plan["documents"], plan["past"]) == ("small", 12, 4)
    assert plan["sequences"] > 60
    assert main(command) == 0
    assert "small: 12 documents" in capsys.readouterr().out
    assert not (tmp_path / "statesize-study-delimiters").exists()


def test_a_run_goes_on_from_what_is_finished(checkpoint, documents, tmp_path, capsys):
    command = ["study", "delimiters", str(checkpoint), "--text", str(documents), "--output", "found", *COMMON]
    assert main(command) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "found").glob("*.parquet")}
    kept = sorted((tmp_path / "found" / "parts").iterdir())
    kept[0].unlink()
    for path in kept[1:]:
        path.touch()
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "found").glob("*.parquet")} == first
    assert sorted((tmp_path / "found" / "parts").iterdir()) == kept
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == times


def test_rows_of_a_data_set_are_documents(checkpoint, tmp_path, capsys):
    data = pytest.importorskip("datasets")
    rows = [{"story": text[:120]} for text in zoo.documents()[:12]]
    data.Dataset.from_list(rows).save_to_disk(tmp_path / "stories")
    command = [
        "study",
        "recall",
        str(checkpoint),
        "--dataset",
        "stories",
        "--field",
        "story",
        "--length",
        "64",
        "--json",
    ]
    assert main([*command, *COMMON]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "stories"
    assert main(["study", "recall", "sa", "--dataset", "stories", "--text", "text.txt"]) == 2
    assert main(["study", "recall", "sa", "--dataset", "stories", "--field", "text"]) == 1
    assert 'has no column "text"' in capsys.readouterr().err
