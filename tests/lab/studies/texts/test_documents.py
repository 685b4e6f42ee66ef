"""Delimiters of every kind of tokenizer, and texts without them."""

import pytest
from oracles.pretrained import TEMPLATE, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.studies.texts.documents import find_delimiter, make_corpus
from statesize.texts.rows import Chat


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
    assert tokenizer.decode([find_delimiter(tokenizer, ".")]) == "."
    assert tokenizer.decode([find_delimiter(tokenizer, "\n")]) == "\n"
    assert tokenizer.decode([find_delimiter(tokenizer, ";")]) == ";"
    assert find_delimiter(chat, "<|im_end|>") == 0


def test_delimiters_of_tokenizers_of_transformers(chat):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=chat, bos_token="a", eos_token="<|im_end|>")  # noqa: S106
    assert find_delimiter(tokenizer, "eos") == find_delimiter(tokenizer, "<|im_end|>") == 0
    assert find_delimiter(tokenizer, ".") == 3
    corpus = make_corpus(["a b", "b b"], tokenizer, "eos", 9)
    assert [document.tolist() for document in corpus.documents] == [[1, 2], [2, 2]]


@pytest.mark.parametrize(("name", "word"), [("eos", "'eos'"), ("two words", "two words"), ("zzz", "zzz")])
def test_a_delimiter_that_the_tokenizer_lacks_is_named_with_what_it_has(chat, name, word):
    if name == "zzz":
        chat = zoo.tokenizer()
    with pytest.raises(InputError, match=word) as caught:
        find_delimiter(chat, name)
    assert "special tokens are" in str(caught.value)


def test_documents_are_cut_where_the_delimiter_occurs_in_them(chat):
    corpus = make_corpus(["a b . b . . a", "b . b b"], chat, ".", 9)
    assert [document.tolist() for document in corpus.documents] == [[1, 2], [2], [1], [2], [2, 2]]
    assert corpus.delimiter == 3
    few = make_corpus(["a b . b . . a", "b . b b"], chat, ".", 2)
    assert [len(document) for document in few.documents] == [2, 1]


def test_texts_without_the_delimiter_are_refused(chat):
    with pytest.raises(InputError, match=r"text must have the delimiter '\.'"):
        make_corpus(["a b", "b a"], chat, ".", 9)
    with pytest.raises(InputError, match="at least 2 documents, got 1"):
        make_corpus(["a b"], chat, "<|im_end|>", 9)


def test_letters_of_a_special_token_are_text():
    corpus = make_corpus(["one<eos>two", "three"], zoo.tokenizer(), "eos", 9)
    assert len(corpus.documents) == 2


def test_chats_go_through_the_template_and_lose_its_beginning():
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATE)
    messages = ({"role": "a", "content": "b"}, {"role": "c", "content": "d"})
    corpus = make_corpus([Chat(messages, "here")], tokenizer, "eos", 9)
    turns = [tokenizer(text, add_special_tokens=False).input_ids for text in ("a: b", "c: d")]
    assert [document.tolist() for document in corpus.documents] == turns
    assert (corpus.beginning, corpus.delimiter) == (0, 1)
