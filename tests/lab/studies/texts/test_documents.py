"""What models read: documents of tokens between ends of text."""

import pytest
from oracles.pretrained import TEMPLATE, tiny_tokenizer
from tokenizers import Tokenizer, models

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.studies.texts.documents import make_corpus
from statesize.texts.rows import Chat


def test_letters_of_a_special_token_are_text():
    corpus = make_corpus(["one<eos>two", "three"], zoo.tokenizer(), 9)
    assert (len(corpus.documents), corpus.delimiter) == (2, 0)
    assert len(make_corpus(["one", "two", "three"], zoo.tokenizer(), 2).documents) == 2


def test_a_tokenizer_without_an_end_and_a_single_document_are_refused():
    with pytest.raises(InputError, match="must have an end-of-text token"):
        make_corpus(["a", "b"], Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), 9)  # noqa: S106
    with pytest.raises(InputError, match="at least 2 documents, got 1"):
        make_corpus(["one"], zoo.tokenizer(), 9)


def test_chats_go_through_the_template_and_lose_its_beginning():
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATE)
    messages = ({"role": "a", "content": "b"}, {"role": "c", "content": "d"})
    corpus = make_corpus([Chat(messages, "here")], tokenizer, 9)
    # Cut at the end of each turn.
    turns = [tokenizer(text, add_special_tokens=False).input_ids for text in ("a: b", "c: d")]
    assert [document.tolist() for document in corpus.documents] == turns
    assert (corpus.beginning, corpus.delimiter) == (0, 1)
