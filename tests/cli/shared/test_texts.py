"""What the commands that take texts read: chats, special tokens, and rows that are left out."""

import json
import shutil

import pyarrow
import pytest
from oracles.pretrained import TEMPLATE, save_tiny, tiny_tokenizer
from pyarrow import parquet

from statesize.cli import main
from statesize.profiling import Profile

CHATS = [
    [{"role": "user", "content": f"What is state {number}?"}, {"role": "assistant", "content": "Numbers. " * 9}]
    for number in range(6)
]
NOTE = "The tokenizer's chat template was applied to 6 of 7 texts."


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "chat", bos=True, template=TEMPLATE))


@pytest.fixture
def chats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [*({"messages": messages} for messages in CHATS), {"text": "a state of its past"}, {"text": "a\ud800b"}]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "chats.jsonl"


def test_chats_are_read_through_the_template_and_rows_without_text_are_left_out(chat_model, chats, capsys):
    command = ["profile", chat_model, "--text", chats, "--positions", "1"]
    assert main([*command, "--output", "result", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert NOTE in captured.err
    assert "Left out 1: chats.jsonl, line 8: " in captured.err
    source = document["source"]
    assert (source["kind"], source["chat_template"]) == ("folder", "applied to 6 of 7 texts")
    profile, tokenizer = Profile.load("result"), tiny_tokenizer(bos=True, template=TEMPLATE)
    lengths, rows = profile.tokens["length"].values, profile.tokens["token_ids"].values
    for chat, row, length in zip(CHATS, rows, lengths, strict=False):
        assert row[:length].tolist() == tokenizer.apply_chat_template(chat)["input_ids"]
    with open("result/page.html", encoding="utf-8") as stream:
        assert "applied to 6 of 7 texts" in stream.read()


def test_a_tokenizer_without_a_template_is_told_with_the_row(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parquet.write_table(pyarrow.table({"messages": CHATS}), "chats.parquet")
    assert main(["profile", str(checkpoint), "--text", "chats.parquet"]) == 1
    assert "tokenizer must have a chat template to read chats.parquet, row 1" in capsys.readouterr().err


@pytest.fixture
def bare(checkpoint, tmp_path, monkeypatch):
    """A checkpoint without a tokenizer."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(checkpoint, tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    return str(folder)


def test_token_ids_for_a_model_without_a_tokenizer(bare, tmp_path, capsys):
    lists = [list(range(7)), [1023, 1, 2, 3], [5, 6]]
    (tmp_path / "ids.json").write_text(json.dumps(lists))
    command = ["profile", bare, "--text", "ids.json", "--max-tokens", "5"]
    assert main([*command, "--output", "result"]) == 0
    errors = capsys.readouterr().err
    assert "The model has no tokenizer that can be loaded: tokens are shown by their ids." in errors
    assert "Reading the first 11 tokens" in errors
    profile = Profile.load("result")
    assert profile.tokens["length"].values.tolist() == [5, 4, 2]
    assert profile.tokens["token_ids"].values.tolist() == [[0, 1, 2, 3, 4], [1023, 1, 2, 3, -1], [5, 6, -1, -1, -1]]
    assert profile.tokens["tokens"].values[1, 0] == "1023"


def test_wrong_token_ids_are_refused_by_place(bare, tmp_path, capsys):
    (tmp_path / "ids.json").write_text("[[1, 2], [4095, 4096]]")
    assert main(["profile", bare, "--text", "ids.json"]) == 1
    assert "ids.json, list 2 must be 2 or more token ids from 0 to 4095, got 4096" in capsys.readouterr().err
    (tmp_path / "text.txt").write_text("A text.")
    assert main(["profile", bare, "--text", "text.txt"]) == 1
    assert "by --text FILE.json." in capsys.readouterr().err
