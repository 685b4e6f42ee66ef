"""Tokenizers of both kinds, and chats through their templates."""

import pytest
import torch
from oracles.pretrained import TEMPLATE, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from statesize.errors import FileError, InputError
from statesize.lab import zoo
from statesize.lab.tasks.text import encode as encode_documents
from statesize.texts.inputs import sequences
from statesize.texts.rows import Chat, RefusedChat
from statesize.texts.tokens import document_ids, special_ids, supported_tokenizer, text_sequence, token_text

MESSAGES = ({"role": "user", "content": "What is a state?"}, {"role": "assistant", "content": "What its past leaves."})
CHAT = Chat(MESSAGES, "chats.jsonl, line 3")


def test_documents_of_a_bundled_model_are_joined_as_in_training():
    tokenizer, documents = zoo.tokenizer(), ["A state.", "The letters <eos> are text."]
    joined = torch.cat([text_sequence(tokenizer, document) for document in documents])
    torch.testing.assert_close(joined, encode_documents(documents, tokenizer))
    assert not tokenizer.encode_special_tokens


@pytest.mark.parametrize("bos", [False, True])
def test_a_tokenizer_of_transformers(bos):
    tokenizer = tiny_tokenizer(bos=bos, template=TEMPLATE)
    ids = text_sequence(tokenizer, "</s> is text").tolist()
    assert (ids[-1], ids.count(1)) == (tokenizer.eos_token_id, 1)
    assert (ids[0] == 0, ids.count(0)) == (bos, bos)
    assert "".join(token_text(tokenizer, token) for token in ids if token > 1) == "</s> is text"
    chat = text_sequence(tokenizer, CHAT).tolist()
    assert chat == tokenizer.apply_chat_template(list(MESSAGES), tokenize=True)["input_ids"]
    # One at the beginning, though both the template and the tokenizer put one there; one after each message.
    assert (chat.count(0), chat.count(1)) == (bos, 2)


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), zoo.tokenizer()])
def test_a_tokenizer_without_a_template(tokenizer):
    with pytest.raises(FileError) as error:
        text_sequence(tokenizer, CHAT)
    assert not isinstance(error.value, RefusedChat)


def test_messages_that_a_template_refuses():
    template = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('No system\n message') }}{% endif %}"
    with pytest.raises(RefusedChat, match=rf"^{CHAT.where}: .*\(No system message\)$"):
        text_sequence(tiny_tokenizer(template=template), CHAT)


@pytest.mark.parametrize("kind", ["transformers", "tokenizers"])
def test_without_an_end_of_sequence_token(kind):
    tokenizer = tiny_tokenizer(eos=False)
    if kind == "tokenizers":
        tokenizer = Tokenizer(models.WordLevel({"?": 0, "one": 1, "two": 2}, unk_token="?"))  # noqa: S106
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert text_sequence(tokenizer, "one two").tolist() == document_ids(tokenizer, "one two")


def test_special_tokens_and_their_roles():
    assert special_ids(tiny_tokenizer(bos=True)) == ({0, 1}, {"eos": 1, "bos": 0})
    assert special_ids(zoo.tokenizer()) == ({0}, {"eos": 0})


def test_a_text_that_brings_its_beginning_gets_no_second_one():
    tokenizer = tiny_tokenizer(bos=True)
    begin = tokenizer.convert_ids_to_tokens(tokenizer.bos_token_id)
    (bare,), (begun,) = (list(sequences(text, tokenizer)) for text in ("abc", f"{begin}abc"))
    assert begun.tolist() == bare.tolist()
    assert begun.tolist().count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("text", ["a state of its past " * 100_000, "ab" * 500_000, "a\n" * 400_000])
def test_of_a_long_text_only_the_beginning_is_encoded(text):
    lengths = []

    class Counting(PreTrainedTokenizerFast):
        def __call__(self, part, **options):
            lengths.append(len(part))
            return super().__call__(part, **options)

    ids = text_sequence(Counting(tokenizer_object=zoo.tokenizer()), text, most=100)
    assert ids.tolist() == text_sequence(zoo.tokenizer(), text[:4000])[:101].tolist()
    assert sum(lengths) < 20_000


def test_tokenizers_of_both_kinds_stay_as_they_are_and_others_are_refused():
    for tokenizer in (None, tiny_tokenizer(), zoo.tokenizer()):
        assert supported_tokenizer(tokenizer) is tokenizer
    for other in ("gpt2", 3, str.split):
        with pytest.raises(InputError):
            supported_tokenizer(other)
