import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from statesize.errors import FileError
from statesize.lab.tasks.corpus import Corpus, python_prose, read_text, sha256_of, split


def five_word_runs(document):
    words = document.split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """The prose of a part of the library: of all of it, it takes seconds."""
    folder = tmp_path_factory.mktemp("library")
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py")):
        shutil.copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sysconfig.get_path", lambda name: str(folder))
        return python_prose()


@pytest.mark.slow
def test_prose_is_real_text_of_the_expected_amount():
    prose = python_prose()
    size = sum(len(document.encode()) for document in prose.train)
    assert size > 1_000_000
    held_out = sum(len(document.encode()) for document in prose.held_out)
    assert 0.03 < held_out / size < 0.09
    assert any("statement" in document for document in prose.held_out)


def test_prose_documents_are_about_400_characters(prose):
    lengths = sorted(map(len, prose.train + prose.held_out))
    assert lengths[0] >= 200
    assert 380 < lengths[len(lengths) // 2] < 500


def test_prose_held_out_is_not_found_in_train(prose):
    train = set().union(*map(five_word_runs, prose.train))
    for document in prose.held_out:
        runs = five_word_runs(document)
        # Later train documents may quote an earlier held-out one for less than 30 % of their own text.
        assert len(runs & train) < 0.5 * max(len(runs), 1), document


def test_prose_has_no_module_of_tests(prose):
    assert not any("test.support" in document and "regrtest" in document for document in prose.train + prose.held_out)


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


def test_a_python_without_its_prose_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(FileError, match="sources of its standard library"):
        python_prose()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pydoc_data.topics", None)
        with pytest.raises(FileError, match=r"must have pydoc_data\.topics"):
            python_prose()
    sentences = [f"Sentence {number} of a docstring tells what a function of that name gives." for number in range(8)]
    (tmp_path / "good.py").write_text(f'"""{" ".join(sentences)}"""', encoding="utf-8")
    # As the templates among the library's files.
    (tmp_path / "template.py").write_text("def {{ name }}(", encoding="utf-8")
    prose = python_prose()
    assert " ".join(sentences) in prose.train + prose.held_out
