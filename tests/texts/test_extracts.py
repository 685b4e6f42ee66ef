"""Some documents of a corpus: from all parts of it, with a total that is right."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from statesize.errors import FileError
from statesize.texts.documents import jsonl
from statesize.texts.tables import dataset, parquet

# Up to five kilobytes: lines drawn by their bytes would be the long ones.
MANY = [f"{number} " + "word " * (number * 7919 % 1000) for number in range(3000)]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_small_file_is_counted(tmp_path):
    path = write_lines(tmp_path / "texts.jsonl", ['{"text": "a"}', "", "damaged", *['{"text": "b"}'] * 9])
    told = []
    found, total = jsonl(path, "text").extract(5, told.append)
    assert (found[0], len(found), total) == ("a", 5, 10)
    assert len(told) == 1
    assert jsonl(path, "text").extract(50, told.append)[0] == ["a", *["b"] * 9]


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "texts.jsonl", [json.dumps({"text": text}) for text in MANY])
    size, read = path.stat().st_size, []

    class Counting(io.BufferedReader):
        def readline(self, *arguments):
            line = super().readline(*arguments)
            read.append(len(line))
            return line

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: Counting(real(self, mode, buffering=0)))
    found, total = jsonl(path, "text").extract(64, pytest.fail)
    assert sum(read) < size / 10
    assert total == pytest.approx(len(MANY), rel=0.25)
    numbers = [int(text.split()[0]) for text in found]
    assert len(set(numbers)) == len(numbers) >= 63
    assert numbers == sorted(numbers)
    assert numbers[-1] > len(MANY) * 0.95 > 0.05 * len(MANY) > numbers[0]
    lengths = sum(map(len, found)) / len(numbers)
    assert lengths == pytest.approx(sum(map(len, MANY)) / len(MANY), rel=0.25)


@pytest.mark.parametrize("count", [1, 3])
def test_a_large_file_of_few_lines(tmp_path, count):
    lines = [json.dumps({"text": f"{number} " + "word " * 300_000}) for number in range(count)]
    found, total = jsonl(write_lines(tmp_path / "texts.jsonl", lines), "text").extract(64, pytest.fail)
    assert [text[0] for text in found] == [str(number) for number in range(count)]
    assert total == count


def test_bad_lines_of_a_large_file(tmp_path):
    lines = [json.dumps({"text": "word " * 200}) if number % 2 else "x" * 1000 for number in range(4000)]
    told = []
    found, total = jsonl(write_lines(tmp_path / "texts.jsonl", lines), "text").extract(200, told.append)
    assert 199 <= len(found) + len(told) <= 200
    assert total == pytest.approx(2000, rel=0.2)
    assert "line at byte" in told[0]
    with pytest.raises(FileError, match="none of 50 rows"):
        jsonl(tmp_path / "texts.jsonl", "body").extract(50, told.append)
    with pytest.raises(FileError, match="cannot be read"):
        jsonl(tmp_path / "missing.jsonl", "text").extract(50, told.append)


@pytest.mark.parametrize("group", [100, 10**6], ids=["many groups", "one group"])
@pytest.mark.parametrize("most", [7, 64])
def test_parquet(tmp_path, group, most):
    texts = [None if number % 10 == 9 else f"text {number}" for number in range(5000)]
    for part in range(2):
        table = pa.table({"text": texts[part * 2500 : part * 2500 + 2500], "other": list(range(2500))})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=group)
    told = []
    found, total = parquet(tmp_path, "text").extract(most, told.append)
    assert len(found) + len(told) == most
    assert total == pytest.approx(4500, rel=0.12)
    numbers = [int(text.split()[1]) for text in found]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) < 2500 < max(numbers)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_chats(tmp_path, kind):
    chats = [[{"role": "user", "content": f"{number} " + "word " * 400}] for number in range(1000)]
    path, told = tmp_path / f"chats.{kind}", []
    if kind == "jsonl":
        found, total = jsonl(write_lines(path, [json.dumps({"messages": chat}) for chat in chats]), "text").extract(
            9, print
        )
    else:
        pq.write_table(pa.table({"messages": chats}), path, row_group_size=100)
        found, total = parquet(path, "text").extract(9, told.append)
    assert total == pytest.approx(1000, rel=0.2)
    numbers = [int(chat.messages[0]["content"].split()[0]) for chat in found]
    assert len(set(numbers)) == 9
    assert numbers[0] < 200 < 700 < numbers[-1]
    assert f"{path}, " in found[0].where


def test_the_beginning_of_large_row_groups(tmp_path):
    texts = [f"{number} {hash(str(number))} " * 40 for number in range(3000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet", use_dictionary=False)
    found, total = parquet(tmp_path / "texts.parquet", "text").extract(20, pytest.fail)
    assert found == texts[:20]
    assert total == 3000
    chats = pa.table({"messages": [[{"role": "user", "content": text}] for text in texts]})
    pq.write_table(chats, tmp_path / "chats.parquet", use_dictionary=False)
    found, total = parquet(tmp_path / "chats.parquet", "text").extract(20, pytest.fail)
    assert [chat.messages[0]["content"] for chat in found] == texts[:20]


def test_a_large_row_group_of_few_rows(tmp_path):
    texts = [str(number) * 400_000 for number in range(3)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet", use_dictionary=False)
    found, total = parquet(tmp_path / "texts.parquet", "text").extract(20, pytest.fail)
    assert (found, total) == (texts, 3)


def test_parquet_without_text(tmp_path):
    pq.write_table(pa.table({"text": [1, 2, 3]}), tmp_path / "texts.parquet")
    with pytest.raises(FileError, match="none of 3 rows"):
        parquet(tmp_path / "texts.parquet", "text").extract(20, lambda _: None)


@pytest.mark.parametrize("kind", ["saved", "files"])
def test_data_sets(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    texts = [None if number == 0 else f"text {number}" for number in range(40)]
    data = datasets.Dataset.from_dict({"text": texts})
    if kind == "saved":
        data.save_to_disk(str(tmp_path / "data"))
    else:
        (tmp_path / "data").mkdir()
        data.to_parquet(str(tmp_path / "data" / "train.parquet"))
    told, name = [], str(tmp_path / "data")
    found, total = dataset(name, "text", "train").extract(10, told.append)
    assert len(found) == 9
    assert "row 0" in told[0]
    if kind == "saved":
        # Known, and evenly spread.
        assert (total, found[-1]) == (36, "text 36")
    else:
        assert total is None
        assert dataset(name, "text", "train").extract(50, told.append)[1] == 39
    with pytest.raises(FileError, match=r'none of 1 rows has text in the column "text"\. Give --field NAME\.'):
        dataset(name, "text", "train").extract(1, told.append)
    with pytest.raises(FileError, match="no column"):
        dataset(name, "title", "train").extract(10, told.append)
