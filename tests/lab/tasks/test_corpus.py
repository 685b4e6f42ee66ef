import re

import pytest

from statesize.errors import FileError
from statesize.lab.tasks.corpus import Corpus, read_text, sha256_of, split


def test_split_is_by_document_whatever_else_there_is():
    documents = [f"document number {index}" for index in range(1000)]
    whole = split(documents)
    assert 20 < len(whole.held_out) < 90
    assert sorted(whole.train + whole.held_out) == sorted(documents)
    half = split(documents[::2])
    assert set(half.held_out) == set(whole.held_out) & set(documents[::2])


def test_split_keeps_equal_documents_together_and_order():
    documents = [f"document number {index % 50}" for index in range(200)]
    parts = split(documents)
    assert not set(parts.train) & set(parts.held_out)
    assert list(parts.train) == [document for document in documents if document in set(parts.train)]


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_split_of_few_documents_leaves_no_part_empty(count):
    for start in range(40):
        parts = split(f"document {index}" for index in range(start, start + count))
        assert parts.train
        assert parts.held_out


def test_split_of_one_document_trains_on_it():
    assert split(["alone", "alone"]) == Corpus(train=("alone", "alone"), held_out=())
    assert split([]) == Corpus(train=(), held_out=())


def test_text_that_is_not_utf8_names_the_byte(tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes("né".encode("latin-1") + b" and more")
    with pytest.raises(FileError, match=r"latin\.txt must be UTF-8 text: .*byte 0xe9 in position 1"):
        read_text(file)


def test_hash_knows_borders_and_sides():
    assert sha256_of(["ab", "c"]) != sha256_of(["a", "bc"])
    assert Corpus(("a",), ("b",)).sha256 != Corpus(("b",), ("a",)).sha256


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(FileError, match=re.escape(str(tmp_path / "nowhere.txt")) + ".*No such file"):
        read_text(tmp_path / "nowhere.txt")
    with pytest.raises(FileError, match="must have rows with text"):
        read_text(tmp_path)
