"""Token ids out of files."""

import json

import pytest
from oracles.pretrained import save_tiny, tiny_llama

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.models.load import load_model, load_model_facts
from statesize.texts.documents import configured_vocabulary, read_token_ids, vocabulary_size

LISTS = [[1, 2, 3], [4, 0]]


@pytest.mark.parametrize(
    ("content", "lists"),
    [
        ("[1, 2, 3]", LISTS[:1]),
        ("\n[1,\n 2,\n 3]\n", LISTS[:1]),
        ("[1, 2, 3]\n\n[4, 0]\n", LISTS),
        ("[[1, 2, 3], [4, 0]]", LISTS),
        (json.dumps(LISTS, indent=2), LISTS),
        ("\ufeff[1, 2, 3]", LISTS[:1]),
    ],
)
def test_lists_of_ids(tmp_path, content, lists):
    (tmp_path / "ids.json").write_text(content, encoding="utf-8")
    assert [ids.tolist() for ids in read_token_ids(tmp_path / "ids.json", 5)] == lists


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", " is empty. Give a JSON list"),
        (" \n\n", " is empty. Give a JSON list"),
        ("[1, 5]", ", line 1, index 1 must be a token id from 0 to 4, got 5."),
        ("[1, 2]\n[1, 2, -1]", ", line 2, index 2 must be a token id from 0 to 4, got -1."),
        ("[1, 2.0]", ", line 1, index 1 must be a token id from 0 to 4, got 2.0."),
        ("[true, 2]", ", line 1, index 0 must be a token id from 0 to 4, got true."),
        ("[null, 2]", ", line 1, index 0 must be a token id from 0 to 4, got null."),
        ('[1, "2"]', ', line 1, index 1 must be a token id from 0 to 4, got "2".'),
        ("[1, [2]]", ", line 1, index 1 must be a token id from 0 to 4, got a list."),
        ("[[1, 2], [3, 9]]", ", line 1, list 2, index 1 must be a token id from 0 to 4, got 9."),
        ("[[1, 2],\n [3, 9]]", ", list 2, index 1 must be a token id from 0 to 4, got 9."),
        ("[1, 2]\n[3]", ", line 2 must hold at least 2 token ids, got 1."),
        ("[]", ", line 1 must hold at least 2 token ids, got 0."),
        ("[1, 2]\n{}", ", line 2 must be a list of token ids, got a dict."),
        ("[1, 2]\nnull", ", line 2 must be a list of token ids, got null."),
        ("[1, 2]\n[1, 2", ", line 2 must be JSON, got what is none (Expecting"),
        ("[1,\n2", " must be JSON, got what is none (Expecting"),
    ],
)
def test_what_is_no_list_of_ids(tmp_path, content, problem):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(FileError) as error:
        list(read_token_ids(path, 5))
    assert str(error.value).startswith(f"{path}{problem}")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match=r"nowhere cannot be read as token ids: No such file"):
        list(read_token_ids(tmp_path / "nowhere", 5))
    (tmp_path / "ids.json").write_bytes(b"[1, 2]\n\xff")
    with pytest.raises(FileError, match=r"line 2 must be JSON"):
        list(read_token_ids(tmp_path / "ids.json", 5))


def test_lines_are_read_as_far_as_they_are_needed(tmp_path):
    (tmp_path / "ids.jsonl").write_text("[1, 2]\ndamaged")
    assert next(read_token_ids(tmp_path / "ids.jsonl", 5)).tolist() == [1, 2]


def test_without_a_known_vocabulary(tmp_path):
    (tmp_path / "ids.json").write_text(f"[1, {2**63 - 1}]")
    assert next(read_token_ids(tmp_path / "ids.json", None)).tolist() == [1, 2**63 - 1]
    (tmp_path / "ids.json").write_text(f"[1, {2**63}]")
    with pytest.raises(FileError, match="index 1 must be a token id from 0 on, got 9223372036854775808"):
        next(read_token_ids(tmp_path / "ids.json", None))


def test_vocabularies(tmp_path):
    assert vocabulary_size(tiny_llama()) == 300
    assert vocabulary_size(zoo.load("gla")[0]) == 4096
    assert configured_vocabulary(None) is None
    folder = str(save_tiny(tmp_path / "llama"))
    tokenizer, size, *_ = load_model_facts(folder)
    assert (tokenizer.eos_token_id, size) == (1, 300)
    assert load_model_facts("gla")[1] == 4096


@pytest.mark.parametrize("kind", ["transformers", "statesize"])
def test_models_without_a_tokenizer(tmp_path, kind, checkpoint_without_tokenizer):
    folder = tmp_path / "bare"
    if kind == "transformers":
        tiny_llama().save_pretrained(folder)
    else:
        folder = checkpoint_without_tokenizer
    for load in (load_model, load_model_facts):
        with pytest.raises(FileError, match=r"tokenizer.* or give token ids to `statesize profile` by --ids FILE\.$"):
            load(str(folder))
    assert load_model(str(folder), needs_tokenizer=False).tokenizer is None
    assert load_model_facts(str(folder), needs_tokenizer=False)[:2] == (None, 300)
