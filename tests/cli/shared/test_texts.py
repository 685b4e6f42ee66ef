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


def refused(arguments, capsys, code=1):
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    before, _, message = captured.err.partition("statesize: error: ")
    assert (len(before.splitlines()), len(message.splitlines())) in {(0, 1), (1, 1)}
    return message.rstrip("\n")


def read_by(profile):
    lengths = profile.tokens["length"].values
    rows = profile.tokens["token_ids"].values
    return [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]


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
    assert read_by(profile)[:6] == [tokenizer.apply_chat_template(chat)["input_ids"] for chat in CHATS]
    with open("result/page.html", encoding="utf-8") as stream:
        assert "applied to 6 of 7 texts" in stream.read()


def test_a_tokenizer_without_a_template_is_told_with_the_row(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parquet.write_table(pyarrow.table({"messages": CHATS}), "chats.parquet")
    expected = (
        "tokenizer must have a chat template to read chats.parquet, row 1, got one without. Give a model whose "
        "folder has a chat_template.jinja, or name a field that holds text by --field."
    )
    assert refused(["profile", str(checkpoint), "--text", "chats.parquet"], capsys) == expected


def test_chats_that_the_template_refuses_are_left_out(tmp_path, chats, capsys):
    template = "{{ raise_exception('No 1') if '1?' in messages[0]['content'] }}" + TEMPLATE
    model = str(save_tiny(tmp_path / "strict", template=template))
    capsys.readouterr()
    told = "chats.jsonl, line 2: the chat template refuses the messages (No 1)"
    assert main(["profile", model, "--text", chats, "--positions", "1"]) == 0
    errors = capsys.readouterr().err
    assert told in errors
    assert "applied to 5 of 6 texts" in errors


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
    assert read_by(profile) == [[0, 1, 2, 3, 4], [1023, 1, 2, 3], [5, 6]]
    assert profile.tokens["tokens"].values[1, 0] == "1023"


def test_wrong_token_ids_are_refused_by_place(bare, tmp_path, capsys):
    (tmp_path / "ids.json").write_text("[[1, 2], [4095, 4096]]")
    said = refused(["profile", bare, "--text", "ids.json"], capsys)
    assert "must be a token id from 0 to 4095, got 4096" in said
    (tmp_path / "text.txt").write_text("A text.")
    message = refused(["profile", bare, "--text", "text.txt"], capsys)
    assert message.endswith("give token ids to `statesize profile` by --text FILE.json.")
