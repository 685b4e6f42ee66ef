"""Chats through the template of a tokenizer."""

import json

import pytest
from oracles.pretrained import TEMPLATE, tiny_tokenizer

from statesize.errors import FileError
from statesize.lab import zoo
from statesize.texts.inputs import sequences
from statesize.texts.rows import Chat, RefusedChat
from statesize.texts.tokens import text_sequence

MESSAGES = ({"role": "user", "content": "What is a state?"}, {"role": "assistant", "content": "What its past leaves."})
CHAT = Chat(MESSAGES, "chats.jsonl, line 3")


@pytest.mark.parametrize("bos", [False, True])
def test_the_ids_are_those_of_transformers(bos):
    tokenizer = tiny_tokenizer(bos=bos, template=TEMPLATE)
    ids = text_sequence(tokenizer, CHAT).tolist()
    assert ids == tokenizer.apply_chat_template(list(MESSAGES), tokenize=True)["input_ids"]
    # One at the beginning, though both the template and the tokenizer put one there; one after each message.
    assert ids.count(0) == bos
    assert ids.count(1) == 2


@pytest.mark.parametrize("kind", ["transformers", "tokenizers"])
def test_a_tokenizer_without_a_template(kind):
    tokenizer = tiny_tokenizer() if kind == "transformers" else zoo.tokenizer()
    with pytest.raises(FileError, match=r"chats.jsonl, line 3") as error:
        text_sequence(tokenizer, CHAT)
    assert not isinstance(error.value, RefusedChat)


def test_messages_that_a_template_refuses():
    template = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('No system\n message') }}{% endif %}"
    with pytest.raises(RefusedChat, match=r"^chats\.jsonl, line 3: the chat template refuses .*\(No system message\)$"):
        text_sequence(tiny_tokenizer(template=template), CHAT)


def test_a_template_says_all_of_a_chat(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": MESSAGES}) + "\n" + '{"text": "a state"}\n')
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATE.removeprefix("{{ bos_token }}"))
    first, second = (ids.tolist() for ids in sequences(path, tokenizer))
    assert (first.count(0), second.count(0)) == (0, 1)
