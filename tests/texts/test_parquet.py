"""Texts out of Parquet files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.texts.documents import file_documents
from statesize.texts.inputs import sequences
from statesize.texts.rows import Chat
from statesize.texts.tables import parquet


def write(path, texts, **columns):
    pq.write_table(pa.table({"text": texts, **columns}), path, row_group_size=3)
    return path


def test_rows_in_order(tmp_path):
    path = write(tmp_path / "texts.parquet", [f"text {row}" for row in range(200)], other=list(range(200)))
    assert list(parquet(path, "text", pytest.fail)) == [f"text {row}" for row in range(200)]
    assert next(file_documents(path)) == ("text 0",)


def test_a_folder_of_files(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "0.parquet", ["three"])
    write(tmp_path / "a.parquet", ["one", "two"])
    assert list(parquet(tmp_path, "text", pytest.fail)) == ["one", "two", "three"]


def test_bad_rows_are_told_and_left_out(tmp_path):
    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    texts = pa.chunked_array([pa.array(["one", None], pa.string()), broken, pa.array(["two"])])
    path, told = write(tmp_path / "texts.parquet", texts), []
    assert list(parquet(path, "text", told.append)) == ["one", "two"]
    assert [note.removeprefix(f"{path}, ") for note in told] == [
        'row 2: "text" is NoneType, not text',
        'row 3: "text" is not UTF-8',
    ]
    # Through profile(), which has nobody to tell, a bad row is an error.
    with pytest.raises(FileError, match="row 2"):
        list(file_documents(path))


def test_chats(tmp_path):
    question, answer = ({"role": role, "content": "Well."} for role in ("user", "assistant"))
    messages = [[question, answer | {"name": "one"}], [], None, [question]]
    path, told = tmp_path / "chats.parquet", []
    pq.write_table(pa.table({"messages": messages}), path)
    # No name is made up for the messages that have none.
    assert list(parquet(path, "text", told.append)) == [
        Chat((question, answer | {"name": "one"}), f"{path}, row 1"),
        Chat((question,), f"{path}, row 4"),
    ]
    assert [note.removeprefix(f"{path}, ") for note in told] == [
        'row 2: "messages" holds no message',
        'row 3: "messages" is NoneType, not a list of messages',
    ]
    both = tmp_path / "both.parquet"
    pq.write_table(pa.table({"messages": messages, "text": ["one", "two", "three", "four"]}), both)
    assert list(parquet(both, "text", pytest.fail)) == ["one", "two", "three", "four"]
    assert next(parquet(both, "messages", pytest.fail)).where == f"{both}, row 1"


@pytest.mark.parametrize("kind", ["no bytes", "no rows", "a folder"])
def test_empty_files(tmp_path, kind):
    path = write(tmp_path / "texts.parquet", pa.array([], pa.string()))
    if kind == "no bytes":
        path.write_bytes(b"")
    if kind == "a folder":
        path = tmp_path
    with pytest.raises(FileError, match=rf"{path.name} is empty\."):
        next(parquet(path, "text", pytest.fail))


def test_what_cannot_be_read(tmp_path):
    path = write(tmp_path / "texts.parquet", [1, 2])
    with pytest.raises(FileError, match=r'no column "title"; its columns are text\.'):
        next(parquet(path, "title", pytest.fail))
    with pytest.raises(FileError, match="no row has text"):
        list(parquet(path, "text", lambda _: None))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="cannot be read as a Parquet file"):
        next(parquet(path, "text", pytest.fail))
    with pytest.raises(FileError, match="cannot be read"):
        next(parquet(tmp_path / "missing.parquet", "text", pytest.fail))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="without a file"):
        next(parquet(tmp_path / "empty", "text", pytest.fail))


def test_damage_in_the_middle(tmp_path):
    path = write(tmp_path / "texts.parquet", ["a text of some length " * 40] * 200)
    content = bytearray(path.read_bytes())
    for index in range(len(content) // 4, len(content) // 3):
        content[index] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FileError, match="cannot be read as a Parquet file"):
        list(parquet(path, "text", pytest.fail))


def test_each_row_is_a_sequence(tmp_path):
    tokenizer = zoo.tokenizer()
    read = sequences([write(tmp_path / "texts.parquet", ["one two", "three four"])], tokenizer)
    assert not isinstance(read, list)
    texts = [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in read]
    assert texts == ["one two<eos>", "three four<eos>"]
