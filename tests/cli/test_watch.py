"""`statesize watch` as a process of its own: lines through a pipe, a table in a terminal."""

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from statesize.cli import main

COMMAND = str(Path(sys.executable).with_name("statesize"))
WORDS = "The function returns a list of all names that are bound in this module and its parents. "
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


def start(*arguments, stdout=subprocess.PIPE, **environment):
    return subprocess.Popen(
        [COMMAND, "watch", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


class Reader:
    """The lines of a pipe, each waited for with patience."""

    def __init__(self, stream):
        self._stream, self._rest, self.lines = stream, b"", []

    def until(self, position):
        while not any(line.startswith(f"{position}\t") for line in self.lines):
            assert select.select([self._stream], [], [], 120)[0], self.lines[-3:]
            piece = os.read(self._stream.fileno(), 65536)
            assert piece, self.lines[-3:]
            *whole, self._rest = (self._rest + piece).split(b"\n")
            self.lines += [line.decode() for line in whole]

    def all(self, out):
        """Every line, once `out` has come after what was waited for."""
        return [*self.lines, *(self._rest + out).decode().splitlines()]


def test_lines_come_while_text_comes(checkpoint):
    process = start(checkpoint, "--future", 4)
    reader = Reader(process.stdout)
    process.stdin.write(WORDS.encode())
    process.stdin.flush()
    # The input is open still.
    reader.until(8)
    assert process.poll() is None
    process.stdin.write(b"\n\nThe last one \x1b[31m\xe2\x80\xae.\n")
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")
    header, *rows = [line.split("\t") for line in reader.all(out)]
    assert header == ["position", "token", "layer", "entropy", "count", "ceiling", "norm"]
    # Two layers for each position, in order, none left out and none twice.
    assert [int(row[0]) for row in rows] == [1 + index // 2 for index in range(len(rows))]
    assert [row[2] for row in rows[:2]] == ["layers.0.mixer", "layers.1.mixer"]
    for row in rows:
        assert 0 <= float(row[3]) <= float(row[5]) * 1.0001
        assert 0 <= float(row[4]) <= float(row[5]) <= 4
        assert json.loads(row[1].replace("\\", "\\\\")).isprintable()
    assert '"<eos>"' in {row[1] for row in rows}


def read_all(master):
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(master, 65536):
            parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


def shown_in_terminal(checkpoint, **settings):
    master, terminal = pty.openpty()
    process = start(checkpoint, "--future", 4, stdout=terminal, TERM="xterm-256color", COLUMNS="100", **settings)
    os.close(terminal)
    process.stdin.write(WORDS.encode())
    process.stdin.close()
    shown = read_all(master)
    assert (process.wait(timeout=120), process.stderr.read()) == (0, b"")
    process.stderr.close()
    return shown


def test_a_table_in_a_terminal(checkpoint):
    shown = shown_in_terminal(checkpoint, LINES="30")
    assert COLOUR.search(shown)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown[shown.rindex("tokens read") :])
    rows = [line.split() for line in last.splitlines() if line.startswith("layers.")]
    assert [row[0] for row in rows] == ["layers.0.mixer", "layers.1.mixer"]
    for row in rows:
        assert float(row[1]) <= int(row[2]) == 4
        assert set(row[3]) <= {"█", "░"}


def test_without_colour_and_with_layers_that_do_not_fit(slow_checkpoint):
    shown = shown_in_terminal(slow_checkpoint, LINES="12", NO_COLOR="1")
    assert not COLOUR.search(shown)
    assert "and 18 more" in shown


@contextlib.contextmanager
def typed(text, monkeypatch):
    """Standard input holds a text."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield


def test_text_that_the_model_goes_on_with_is_read_too(checkpoint, monkeypatch, capsys):
    rows = {}
    for count in (0, 12):
        with typed(WORDS.encode(), monkeypatch):
            assert (
                main(["watch", str(checkpoint), "--future", "4", *(["--generate", str(count)] if count else [])]) == 0
            )
        captured = capsys.readouterr()
        assert captured.err == ""
        rows[count] = captured.out.splitlines()
    # Two layers at each of 12 more cuts, and what was there before is the same.
    assert len(rows[12]) == len(rows[0]) + 24
    assert [line.split("\t")[:3] for line in rows[12][: len(rows[0])]] == [line.split("\t")[:3] for line in rows[0]]


def test_documents(checkpoint, monkeypatch, capsys):
    with typed(WORDS.encode(), monkeypatch):
        assert main(["watch", str(checkpoint), "--future", "4", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["position"] for document in documents] == list(range(1, 1 + len(documents)))
    for document in documents:
        assert [layer["name"] for layer in document["layers"]] == ["layers.0.mixer", "layers.1.mixer"]
    with typed(WORDS.encode(), monkeypatch):
        assert main(["watch", str(checkpoint), "--future", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 2 * len(documents)
    assert lines[0].split("\t")[3] == f"{documents[0]['layers'][0]['entropy']:.4g}"


@pytest.mark.parametrize(("options", "count"), [([], 1), (["--special-tokens"], 2)])
def test_special_tokens_that_the_text_spells(checkpoint, options, count, monkeypatch, capsys):
    text = "The state.<eos>Its past.<eos> and its future\n\n"
    with typed(text.encode(), monkeypatch):
        assert main(["watch", str(checkpoint), "--future", "1", "--json", *options]) == 0
    tokens = [json.loads(line)["token"] for line in capsys.readouterr().out.splitlines()]
    assert tokens.count("<eos>") == count


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (b"", [], "0 tokens"),
        (b"One word", [], "once there are 17"),
        ("café ".encode("latin-1") * 9, [], "not UTF-8"),
        (WORDS.encode(), ["--context", "9"], "context must be"),
    ],
    ids=["nothing", "little", "latin-1", "context"],
)
def test_bad_input(checkpoint, text, arguments, message, monkeypatch, capsys):
    with typed(text, monkeypatch):
        assert main(["watch", str(checkpoint), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("statesize: error: ")
    assert message in line


def test_a_page_of_what_was_read(checkpoint, tmp_path, monkeypatch, capsys):
    page = tmp_path / "watch.html"
    with typed(WORDS.encode(), monkeypatch):
        assert main(["watch", str(checkpoint), "--future", "4", "--html", str(page)]) == 0
    captured = capsys.readouterr()
    assert f"Report: {page}" in captured.err
    cuts = len(captured.out.splitlines()[1:]) // 2
    written = page.read_text(encoding="utf-8")
    assert f"was measured at {cuts} cuts" in written
    assert written.count('<tr><th scope="row">layers.') == 2
    assert main(["watch", str(checkpoint), "--open"]) == 1
    assert "open must come with html" in capsys.readouterr().err
