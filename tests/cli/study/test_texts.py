"""`statesize lab study delimiters`: documents, files, and bad input."""

import json
from pathlib import Path

import pandas as pd
import pytest

from statesize.cli import main
from statesize.lab import zoo


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": text[:120]}) for text in zoo.documents()[:12]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def command(checkpoint):
    """The command of a study for a small model, with what it reads."""

    def command(name, text):
        cls, grid = name.capitalize(), {"text": str(text), "models": (str(checkpoint),)}
        lines = [
            f"from statesize.lab.studies.{name} import {cls}",
            "from statesize.lab.studies import study",
            "from statesize.lab.studies.texts.reading import TextGrid",
            f"class Small({cls}):",
            f"    presets = {{'smoke': TextGrid(**{grid!r})}}",
            f"study('small-{name}')(Small)",
        ]
        Path("mine.py").write_text("\n".join(lines), encoding="utf-8")
        return ["lab", "study", f"small-{name}", "--plugin", "mine.py", "--output", "found"]

    return command


def test_the_document_of_delimiters_and_its_files(command, documents, tmp_path, capsys):
    assert main([*command("delimiters", documents), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["study"], document["preset"], document["runs"]) == ("small-delimiters", "smoke", 1)
    assert len([name for name in document["figures"] if name.startswith("control_small_")]) == 4
    table = pd.read_parquet(tmp_path / document["table"])
    assert table["offset"].nunique() > 8
    assert "small" in (tmp_path / "found" / "study.html").read_text(encoding="utf-8")
    assert main(command("delimiters", documents)) == 0
    assert "run " not in capsys.readouterr().err
    assert (table["recall_perplexity"] > 1).all()


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b"one two three", "at least 2 documents, got 1", 2),
        (b"one\n\ntwo\n\nthree", "Half of the documents must have", 2),
        ("größer\n\n".encode() + "größer".encode("latin-1"), "utf-8", 1),
    ],
)
def test_bad_texts_are_one_clear_line(command, documents, tmp_path, capsys, content, words, code):
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    assert main([*command("delimiters", documents), "--text", str(text)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]
