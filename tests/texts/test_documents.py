"""Texts, chats and token ids out of files."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.texts.documents import read_file, read_token_ids
from statesize.texts.inputs import sequences
from statesize.texts.rows import Chat

CHAT = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two.", "name": "one"}]


def write_lines(path, rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_table(path, rows):
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


# Each reader of rows: a suffix, what writes its file, and the word for a row.
READERS = pytest.mark.parametrize(
    ("suffix", "write", "word"),
    [(".jsonl", write_lines, "line"), (".NDJSON", write_lines, "line"), (".parquet", write_table, "row")],
)


@READERS
def test_rows_hold_texts_and_chats(tmp_path, suffix, write, word):
    rows = [{"text": "one", "messages": CHAT}, {"text": "a whole pair: 🙂", "messages": CHAT[:1]}]
    path = write(tmp_path / f"rows{suffix}", rows)
    # No name is made up for the messages that have none.
    chats = [Chat(tuple(CHAT), f"{path}, {word} 1"), Chat(tuple(CHAT[:1]), f"{path}, {word} 2")]
    assert list(read_file(path)) == ["one", "a whole pair: 🙂"]
    assert list(read_file(path, "messages")) == chats
    write(path, [{"messages": CHAT}])
    assert next(read_file(path)) == chats[0]
    write(path, [{"text": f"text {row}"} for row in range(200)])
    assert list(read_file(path)) == [f"text {row}" for row in range(200)]


@READERS
def test_rows_without_a_document_are_noted_and_left_out(tmp_path, suffix, write, word):
    rows = [{"text": "one", "messages": CHAT}, {"text": None, "messages": []}, {"text": "two", "messages": None}]
    path, notes = write(tmp_path / f"rows{suffix}", rows), []
    assert list(read_file(path, "text", notes.append)) == ["one", "two"]
    assert len(list(read_file(path, "messages", notes.append))) == 1
    assert [note.split(": ")[0] for note in notes] == [f"{path}, {word} {number}" for number in (2, 2, 3)]
    # Where nobody notes it, it is an error.
    with pytest.raises(FileError, match=f"{word} 2"):
        list(read_file(path))


BAD = [
    *('{"text": "tw', "[]", '{"text": 3}', '{"other": "x"}', r'{"text": "a\ud800b"}', '{"text": ["a text"]}'),
    *('{"messages": "a text"}', '{"messages": ["a text"]}', '{"messages": [{"content": "a"}]}'),
    *('{"messages": [{"role": "user"}]}', r'{"messages": [{"role": "user", "content": "a\ud800b"}]}'),
]


def test_damaged_lines_and_cells(tmp_path):
    path, notes = write_lines(tmp_path / "texts.jsonl", ["", *BAD, '{"text": "one"}']), []
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    assert list(read_file(path, "text", notes.append)) == ["one"]
    wrong = [*range(2, 2 + len(BAD)), 3 + len(BAD)]
    assert [note.split(": ")[0] for note in notes] == [f"{path}, line {number}" for number in wrong]
    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    texts = pa.chunked_array([pa.array(["one"], pa.string()), broken, pa.array(["two"])])
    assert list(read_file(write_table(tmp_path / "a.parquet", pa.table({"text": texts})), note=str)) == ["one", "two"]


def test_lines_are_not_held_in_memory(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", [{"text": "word " * 20_000}] * 200)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(path)) == 200
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < path.stat().st_size / 10


def test_files_without_text_and_damaged_ones(tmp_path):
    table = write_table(tmp_path / "texts.parquet", [{"text": "a text of some length " * 40}] * 200)
    content = bytearray(table.read_bytes())
    content[len(content) // 4 : len(content) // 3] = bytes(len(content) // 3 - len(content) // 4)
    (tmp_path / "damaged.parquet").write_bytes(content)
    (tmp_path / "cut.parquet").write_bytes(table.read_bytes()[:-20])
    write_table(tmp_path / "numbers.parquet", [{"text": 1}])
    write_table(tmp_path / "none.parquet", pa.table({"text": pa.array([], pa.string())}))
    write_table(tmp_path / "other.parquet", [{"other": "a text"}])
    write_lines(tmp_path / "other.jsonl", [{"other": 1}])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "ids.json").write_text("[1, 2]")
    for name in ("nothing.jsonl", "nothing.parquet", "nothing.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "missing.jsonl", tmp_path / "missing.parquet"]:
        if path != table:
            with pytest.raises(FileError):
                list(read_file(path, note=str if path.name == "empty" else None))


def test_each_row_and_each_text_file_is_a_sequence(tmp_path):
    tokenizer = zoo.tokenizer()
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbf\none\r\n\r\ntwo\n")
    write_table(tmp_path / "b.parquet", [{"text": "one two"}])
    (tmp_path / "a").mkdir()
    write_table(tmp_path / "a" / "0.parquet", [{"text": "three four"}])
    texts = [tokenizer.decode(ids.tolist(), False) for ids in sequences([tmp_path, tmp_path / "text.txt"], tokenizer)]
    assert texts == ["three four<eos>", "one two<eos>", "one\n\ntwo<eos>"]
    assert list(read_file(tmp_path / "text.txt")) == ["one", "two"]


LISTS = [[1, 2, 3], [4, 0]]


@pytest.mark.parametrize(
    ("content", "lists"), [("\n[1,\n 2,\n 3]\n", LISTS[:1]), ("[[1, 2, 3], [4, 0]]", LISTS), (f"[1,{2**63 - 1}]", None)]
)
def test_lists_of_ids(tmp_path, content, lists):
    path = tmp_path / "ids.json"
    path.write_text(content, encoding="utf-8")
    assert [ids.tolist() for ids in sequences(path)] == (lists or [[1, 2**63 - 1]])
    if lists:
        assert [ids.tolist() for ids in read_token_ids(path, 5)] == lists


@pytest.mark.parametrize(
    ("content", "where"),
    [
        *((content, "") for content in ("", "[1,\n2", "[1, 2]\n[1, 2]")),
        *((f"[1, {item}]", ", list 1") for item in ("5", "-1", "2.0", "true", "null", "[2]", str(2**63))),
        ("[[1, 2], [3, 9]]", ", list 2"),
        *((content, ", list 1") for content in ("[]", "{}", "[3]", "null")),
    ],
)
def test_what_is_no_list_of_ids(tmp_path, content, where):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(FileError) as error:
        list(read_token_ids(path, 5))
    assert str(error.value).startswith(f"{path}{where} must")
