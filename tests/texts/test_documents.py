"""Texts out of files and data sets."""

import json
import sys
import tracemalloc

import pytest

from statesize.errors import FileError
from statesize.texts import rows
from statesize.texts.documents import file_documents, jsonl
from statesize.texts.rows import Chat
from statesize.texts.tables import dataset

ROWS = [{"text": "one", "body": "eins"}, {"text": "two", "body": "zwei"}, {"text": "three", "body": "drei"}]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_jsonl(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", map(json.dumps, ROWS))
    assert list(jsonl(path, "body", pytest.fail)) == ["eins", "zwei", "drei"]
    assert list(file_documents(path)) == [("one",), ("two",), ("three",)]


def test_bad_lines_are_told_and_left_out(tmp_path):
    lines = ['{"text": "one"}', "", '{"text": "tw', "[]", '{"text": 3}', '{"other": "x"}', '{"text": "two"}']
    path = write_lines(tmp_path / "texts.jsonl", lines)
    told = []
    assert list(jsonl(path, "text", told.append)) == ["one", "two"]
    assert [note.partition(":")[0].rpartition(" ")[2] for note in told] == ["3", "4", "5", "6"]
    assert "no JSON" in told[0]
    assert 'text in the field "text"' in told[1]
    # Through profile(), which has nobody to tell, a bad line is an error.
    with pytest.raises(FileError, match="line 3"):
        list(file_documents(path))


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_bytes('{"text": "café"}\n'.encode("latin-1") + b'{"text": "two"}\n')
    told = []
    assert list(jsonl(path, "text", told.append)) == ["two"]
    assert "line 1: not UTF-8" in told[0]


def test_a_lone_surrogate_is_told_and_left_out(tmp_path):
    whole = json.dumps({"text": "a whole pair: 🙂"})
    lines = ['{"text": "one"}', r'{"text": "a\ud800b"}', whole, r'{"text": "two", "other": "\udc00"}']
    path = write_lines(tmp_path / "texts.jsonl", lines)
    path.write_bytes(path.read_bytes() + b'{"text": "\xed\xa0\x80"}\n')
    told = []
    assert list(jsonl(path, "text", told.append)) == ["one", "a whole pair: 🙂", "two"]
    assert told == [
        f'{path}, line 2: "text" holds a lone surrogate, which is no Unicode text',
        f"{path}, line 5: not UTF-8",
    ]


def test_a_line_that_is_too_long_is_told_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MOST_LINE", 30)
    monkeypatch.setattr(rows, "_SKIPPED", 7)
    text = '{"text": "one"}\n' + '{"text": "' + "x" * 90 + '"}\n' + '{"text": "two"}\n{"text": "' + "y" * 90
    (tmp_path / "texts.jsonl").write_text(text)
    told = []
    assert list(jsonl(tmp_path / "texts.jsonl", "text", told.append)) == ["one", "two"]
    assert [note.rpartition(", ")[2] for note in told] == [f"line {number}: more than 30 bytes" for number in (2, 4)]


def test_a_large_file_is_not_held_in_memory(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", ['{"text": "' + "word " * 20_000 + '"}'] * 200)
    tracemalloc.start()
    try:
        assert sum(1 for _ in jsonl(path, "text", pytest.fail)) == 200
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < path.stat().st_size / 10


CHAT = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]


def test_chats(tmp_path):
    lines = [{"messages": CHAT}, {"text": "one", "messages": CHAT}, {"turns": CHAT}]
    path = write_lines(tmp_path / "chats.jsonl", map(json.dumps, lines))
    told = []
    first = Chat(tuple(CHAT), f"{path}, line 1")
    assert list(jsonl(path, "text", told.append)) == [first, "one"]
    assert told == [f'{path}, line 3: no text in the field "text"']
    assert list(jsonl(path, "turns", lambda _: None))[-1] == Chat(tuple(CHAT), f"{path}, line 3")
    assert next(file_documents(path)) == (first,)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], '"messages" holds no message'),
        ("a text", '"messages" is str, not a list of messages'),
        (["a text"], '"messages" is list, not text or messages'),
        ([CHAT[0], {"role": "user"}], 'message 2 of "messages" lacks text under "role" or "content"'),
        ([{"content": "a text"}], 'message 1 of "messages" lacks text under "role" or "content"'),
        ([{"role": "user", "content": "a\ud800b"}], '"messages" holds a lone surrogate, which is no Unicode text'),
    ],
)
def test_chats_that_are_none(tmp_path, messages, problem):
    path = write_lines(tmp_path / "chats.jsonl", [json.dumps({"messages": messages}), '{"text": "one"}'])
    told = []
    assert list(jsonl(path, "text", told.append)) == ["one"]
    assert told == [f"{path}, line 1: {problem}"]


def test_a_file_is_read_as_far_as_it_is_needed(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", ['{"text": "one"}', "damaged"])
    assert next(jsonl(path, "text", pytest.fail)) == "one"


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], r"texts\.jsonl is empty\."), ([""], "no row"), (['{"other": 1}'], 'with text in a field "text"')],
)
def test_no_text_at_all(tmp_path, lines, message):
    with pytest.raises(FileError, match=message):
        list(jsonl(write_lines(tmp_path / "texts.jsonl", lines), "text", lambda _: None))
    with pytest.raises(FileError, match="cannot be read"):
        list(jsonl(tmp_path / "missing.jsonl", "text", pytest.fail))


@pytest.fixture(scope="module")
def datasets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield pytest.importorskip("datasets")


@pytest.mark.parametrize("kind", ["saved", "splits", "files"])
def test_data_sets_on_disk(datasets, tmp_path, kind):
    data = datasets.Dataset.from_list([*ROWS, {"text": None, "body": "nichts"}])
    if kind == "files":
        (tmp_path / "data").mkdir()
        data.to_parquet(str(tmp_path / "data" / "train.parquet"))
    else:
        saved = data if kind == "saved" else datasets.DatasetDict({"train": data})
        saved.save_to_disk(str(tmp_path / "data"))
    told = []
    name = str(tmp_path / "data")
    assert list(dataset(name, "text", "train", told.append)) == ["one", "two", "three"]
    assert len(told) == 1
    assert "row 3" in told[0]
    with pytest.raises(FileError, match='no column "title"; its columns are text, body'):
        next(dataset(name, "title", "train", pytest.fail))
    if kind != "saved":
        with pytest.raises(FileError, match='part "validation"'):
            next(dataset(name, "text", "validation", pytest.fail))


def test_chats_of_a_data_set(datasets, tmp_path):
    datasets.Dataset.from_list([{"messages": CHAT}, {"messages": []}]).save_to_disk(str(tmp_path / "data"))
    told, name = [], str(tmp_path / "data")
    assert list(dataset(name, "text", "train", told.append)) == [Chat(tuple(CHAT), f"{name}, row 0")]
    assert told == [f'{name}, row 1: "messages" holds no message']


def test_a_data_set_that_is_not_there(datasets, tmp_path):
    with pytest.raises(FileError, match=r"There is no data set .*nowhere"):
        next(dataset(str(tmp_path / "nowhere"), "text", "train", pytest.fail))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileError, match=r"pip install datasets"):
        next(dataset("anything", "text", "train", pytest.fail))


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.ndjson", "a.NDJSON"])
def test_rows_by_any_name_of_their_kind(tmp_path, name):
    path = write_lines(tmp_path / name, [json.dumps({"text": "one"}), json.dumps({"messages": CHAT})])
    assert [type(row[0]) for row in file_documents(path)] == [str, Chat]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [(["one", "two"], [str, str]), (ROWS, [str] * 3), ([{"messages": CHAT}, CHAT], [Chat, Chat]), (CHAT, [Chat])],
)
def test_a_list_in_json(tmp_path, values, kinds):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    assert [type(row[0]) for row in file_documents(path)] == kinds


@pytest.mark.parametrize("content", ['{"text": "one"}', "[]", "[3]", "prose", '{"text": "a"}\n{"text": "b"}'])
def test_json_that_holds_no_list_of_texts_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileError, match=r"a\.json"):
        list(file_documents(path))
