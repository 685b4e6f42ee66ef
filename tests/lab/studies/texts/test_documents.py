"""Delimiters of every kind of tokenizer, and texts without them."""

import json

import pandas as pd
import pytest
from oracles.pretrained import TEMPLATE, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab.studies.texts.documents import find_delimiter, make_corpus, read_texts
from statesize.texts.rows import Chat, RefusedChat


@pytest.fixture
def chat():
    """Words as tokens; a chat template's end of turn, but no end of sequence."""
    words = ["<|im_end|>", "a", "b", ".", "\n", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({word: token for token, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


def test_named_delimiters_and_texts_of_tokens(chat):
    tokenizer = zoo.tokenizer()
    assert find_delimiter(tokenizer, "eos") == 0
    assert tokenizer.decode([find_delimiter(tokenizer, "stop")]) == "."
    assert tokenizer.decode([find_delimiter(tokenizer, "newline")]) == "\n"
    assert tokenizer.decode([find_delimiter(tokenizer, ";")]) == ";"
    assert find_delimiter(chat, "turn") == 0


def test_delimiters_of_tokenizers_of_transformers(chat):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=chat, bos_token="a", eos_token="<|im_end|>")  # noqa: S106
    assert find_delimiter(tokenizer, "eos") == find_delimiter(tokenizer, "turn") == 0
    assert find_delimiter(tokenizer, "stop") == 3
    corpus = make_corpus(["a b", "b b"], tokenizer, "eos")
    assert [document.tolist() for document in corpus.documents] == [[1, 2], [2, 2]]


@pytest.mark.parametrize(("name", "word"), [("eos", "'eos'"), ("two words", "two words"), ("zzz", "zzz")])
def test_a_delimiter_that_the_tokenizer_lacks_is_named_with_what_it_has(chat, name, word):
    if name == "zzz":
        chat = zoo.tokenizer()
    with pytest.raises(InputError, match=word) as caught:
        find_delimiter(chat, name)
    assert "special tokens are" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_documents_are_cut_where_the_delimiter_occurs_in_them(chat):
    corpus = make_corpus(["a b . b . . a", "b . b b"], chat, "stop")
    assert [document.tolist() for document in corpus.documents] == [[1, 2], [2], [1], [2], [2, 2]]
    assert corpus.delimiter == 3
    assert [len(document) for document in corpus.shortened(2).documents] == [2, 1]


def test_texts_without_the_delimiter_are_refused(chat):
    with pytest.raises(InputError, match="The text has no delimiter 'stop': none of its 2 documents"):
        make_corpus(["a b", "b a"], chat, "stop")
    with pytest.raises(InputError, match="at least 2 documents, got 1"):
        make_corpus(["a b"], chat, "turn")


def test_letters_of_a_special_token_are_text():
    corpus = make_corpus(["one<eos>two", "three"], zoo.tokenizer(), "eos")
    assert len(corpus.documents) == 2


def test_special_tokens_that_texts_spell():
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATE)
    state, past = (tokenizer(text, add_special_tokens=False).input_ids for text in ("a state", "its past"))
    # Each sequence is given a beginning of its own.
    corpus = make_corpus(["<s>a state</s>its past</s>"], tokenizer, "eos", special_tokens=True)
    assert [document.tolist() for document in corpus.documents] == [state, past]
    assert (corpus.beginning, corpus.delimiter) == (0, 1)
    messages = ({"role": "a", "content": "b"}, {"role": "c", "content": "d"})
    corpus = make_corpus([Chat(messages, "here")], tokenizer, "eos")
    turns = [tokenizer(text, add_special_tokens=False).input_ids for text in ("a: b", "c: d")]
    assert [document.tolist() for document in corpus.documents] == turns


def test_a_chat_that_the_template_refuses_is_told():
    tokenizer = tiny_tokenizer(template="{{ raise_exception('never') }}")
    texts, told = ["a state", Chat(({"role": "a", "content": "b"},), "here"), "its past"], []
    assert len(make_corpus(texts, tokenizer, "eos", note=told.append).documents) == 2
    assert told == ["here: the chat template refuses the messages (never)"]
    with pytest.raises(RefusedChat, match="here"):
        make_corpus(texts, tokenizer, "eos")


def test_blank_lines_part_no_documents_where_special_tokens_do(tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")
    assert read_texts(tmp_path / "text.txt", 9, pytest.fail) == ["one", "two"]
    assert read_texts(tmp_path / "text.txt", 9, pytest.fail, special_tokens=True) == ["one\n\ntwo"]


def test_a_corrupt_line_is_left_out_and_named(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [
        json.dumps({"text": "one"}).encode(),
        b'{"text": "two',
        json.dumps({"text": "drei"}).encode(),
        b'{"text": "\xff"}',
    ]
    path.write_bytes(b"\n".join(lines))
    problems = []
    assert read_texts(path, 9, problems.append) == ["one", "drei"]
    assert [problem.partition(":")[0].rpartition(", ")[2] for problem in problems] == ["line 2", "line 4"]


def test_rows_of_parquet_are_read_as_far_as_they_are_asked_for(tmp_path):
    path = tmp_path / "texts.parquet"
    pd.DataFrame({"text": ["one", None, "three", "four"]}).to_parquet(path)
    problems = []
    assert read_texts(path, 2, problems.append) == ["one", "three"]
    assert len(problems) == 1


def test_mixed_encodings_are_refused_where_they_begin(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_bytes("größer\n\n".encode() + "größer".encode("latin-1"))
    with pytest.raises(FileError, match=r"byte 0xf6 in position 12"):
        read_texts(path, 9, print)
