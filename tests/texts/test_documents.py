"""Texts, chats and token ids out of files."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracles.pretrained import save_tiny, tiny_llama

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.models.load import load_model_facts
from statesize.texts.documents import configured_vocabulary, read_file, read_token_ids, vocabulary_size
from statesize.texts.inputs import sequences
from statesize.texts.rows import Chat

CHAT = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_table(path, texts, **columns):
    pq.write_table(pa.table({"text": texts, **columns}), path, row_group_size=3)
    return path


BAD = [
    *('{"text": "tw', "[]", '{"text": 3}', '{"other": "x"}', r'{"text": "a\ud800b"}', '{"text": ["a text"]}'),
    *('{"messages": null}', '{"messages": []}', '{"messages": "a text"}', '{"messages": ["a text"]}'),
    *('{"messages": [{"content": "a"}]}', '{"messages": [{"role": "user"}]}'),
    r'{"messages": [{"role": "user", "content": "a\ud800b"}]}',
]


def test_bad_lines_are_noted_and_left_out(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", ['{"text": "one"}', "", *BAD, '{"text": "a whole pair: 🙂"}'])
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    notes = []
    assert list(read_file(path, "text", notes.append)) == ["one", "a whole pair: 🙂"]
    wrong = [*range(3, 3 + len(BAD)), 4 + len(BAD)]
    assert [note.split(": ")[0] for note in notes] == [f"{path}, line {number}" for number in wrong]
    # Where nobody notes it, a bad line is an error.
    with pytest.raises(FileError, match="line 3"):
        list(read_file(path))


def test_lines_are_not_held_in_memory(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", ['{"text": "' + "word " * 20_000 + '"}'] * 200)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(path)) == 200
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < path.stat().st_size / 10


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.ndjson"])
def test_texts_and_chats_in_rows(tmp_path, name):
    rows = [{"messages": CHAT}, {"text": "one", "messages": CHAT}, {"turns": CHAT, "text": "two"}]
    path = write_lines(tmp_path / name, map(json.dumps, rows))
    chats = [Chat(tuple(CHAT), f"{path}, line {number}") for number in (1, 2, 3)]
    assert list(read_file(path)) == [chats[0], "one", "two"]
    assert list(read_file(path, "turns")) == chats


def test_parquet(tmp_path):
    path = write_table(tmp_path / "texts.parquet", [f"text {row}" for row in range(200)], other=list(range(200)))
    assert list(read_file(path)) == [f"text {row}" for row in range(200)]
    (tmp_path / "b").mkdir()
    write_table(tmp_path / "b" / "0.parquet", ["three"])
    write_table(path, ["one", "two"])
    assert list(read_file(tmp_path)) == ["three", "one", "two"]


def test_bad_rows_of_parquet_are_noted_and_left_out(tmp_path):
    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    texts = pa.chunked_array([pa.array(["one", None], pa.string()), broken, pa.array(["two"])])
    path, notes = write_table(tmp_path / "texts.parquet", texts), []
    assert list(read_file(path, "text", notes.append)) == ["one", "two"]
    assert [note.split(": ")[0] for note in notes] == [f"{path}, row {number}" for number in (2, 3)]
    with pytest.raises(FileError, match="row 2"):
        list(read_file(path))


def test_chats_in_parquet(tmp_path):
    question, answer = CHAT
    messages = [[question, answer | {"name": "one"}], [], None, [question]]
    path, notes = write_table(tmp_path / "chats.parquet", ["one", "two", "three", "four"], messages=messages), []
    assert list(read_file(path)) == ["one", "two", "three", "four"]
    # No name is made up for the messages that have none.
    assert list(read_file(path, "messages", notes.append)) == [
        Chat((question, answer | {"name": "one"}), f"{path}, row 1"),
        Chat((question,), f"{path}, row 4"),
    ]
    assert len(notes) == 2
    pq.write_table(pa.table({"messages": messages[:1]}), path)
    assert next(read_file(path)).where == f"{path}, row 1"


def test_files_without_text_and_damaged_ones(tmp_path):
    table = write_table(tmp_path / "texts.parquet", ["a text of some length " * 40] * 200)
    content = bytearray(table.read_bytes())
    content[len(content) // 4 : len(content) // 3] = bytes(len(content) // 3 - len(content) // 4)
    (tmp_path / "damaged.parquet").write_bytes(content)
    (tmp_path / "cut.parquet").write_bytes(table.read_bytes()[:-20])
    write_table(tmp_path / "numbers.parquet", [1, 2])
    write_table(tmp_path / "none.parquet", pa.array([], pa.string()))
    for name in ("nothing.jsonl", "nothing.parquet", "nothing.txt"):
        (tmp_path / name).write_bytes(b"")
    write_lines(tmp_path / "other.jsonl", ['{"other": 1}'])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for path in [*tmp_path.iterdir(), tmp_path / "missing.jsonl", tmp_path / "missing.parquet"]:
        if path != table:
            with pytest.raises(FileError, match=path.name):
                list(read_file(path))
    with pytest.raises(FileError, match=r'"title".* text'):
        next(read_file(table, "title", pytest.fail))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="empty"):
        next(read_file(tmp_path / "empty", "text", pytest.fail))


def test_each_row_and_each_text_file_is_a_sequence(tmp_path):
    tokenizer = zoo.tokenizer()
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbf\none\r\n\r\ntwo\n")
    paths = [write_table(tmp_path / "texts.parquet", ["one two", "three four"]), tmp_path / "text.txt"]
    texts = [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in sequences(paths, tokenizer)]
    assert texts == ["one two<eos>", "three four<eos>", "one\n\ntwo<eos>"]
    assert list(read_file(tmp_path / "text.txt")) == ["one", "two"]


LISTS = [[1, 2, 3], [4, 0]]


@pytest.mark.parametrize(
    ("content", "lists"),
    [
        ("[1, 2, 3]", LISTS[:1]),
        ("\n[1,\n 2,\n 3]\n", LISTS[:1]),
        ("[[1, 2, 3], [4, 0]]", LISTS),
        (json.dumps(LISTS, indent=2), LISTS),
    ],
)
def test_lists_of_ids(tmp_path, content, lists):
    (tmp_path / "ids.json").write_text(content, encoding="utf-8")
    assert [ids.tolist() for ids in read_token_ids(tmp_path / "ids.json", 5)] == lists
    assert [ids.tolist() for ids in sequences(tmp_path / "ids.json")] == lists
    with pytest.raises(FileError, match=r"ids\.json"):
        list(read_file(tmp_path / "ids.json"))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        *((content, "") for content in ("", "[1,\n2", "[1, 2]\n[1, 2]")),
        *((f"[1, {item}]", ", list 1, index 1") for item in ("5", "-1", "2.0", "true", "null", "[2]", str(2**63))),
        ("[[1, 2], [3, 9]]", ", list 2, index 1"),
        *((content, ", list 1") for content in ("[]", "{}", "[3]", "null")),
    ],
)
def test_what_is_no_list_of_ids(tmp_path, content, where):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(FileError) as error:
        list(read_token_ids(path, 5))
    assert str(error.value).startswith(f"{path}{where} must")
    assert "\n" not in str(error.value)


def test_ids_of_any_vocabulary(tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(f"[1, {2**63 - 1}]")
    assert next(read_token_ids(path, None)).tolist() == [1, 2**63 - 1]
    with pytest.raises(FileError, match="nowhere"):
        list(read_token_ids(tmp_path / "nowhere", 5))


def test_vocabularies(tmp_path):
    assert vocabulary_size(tiny_llama()) == 300
    assert vocabulary_size(zoo.load("gla")[0]) == 4096
    assert configured_vocabulary(None) is None
    facts = load_model_facts(str(save_tiny(tmp_path / "llama")))
    assert (facts.tokenizer.eos_token_id, facts.vocabulary) == (1, 300)
    assert load_model_facts("gla").vocabulary == 4096
