"""Tokenizers of other kinds: tiktoken's, and functions."""

import numpy as np
import pytest
import tiktoken
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer

import statesize as ss
from statesize.texts.tokens import special_ids, supported_tokenizer, text_sequence, token_text

IDS = [ord(letter) for letter in TEXT]


def letters(text):
    return [ord(letter) for letter in text]


class WithEncode:
    """As many small tokenizers are written."""

    eot_token = 299

    def encode(self, text):
        return letters(text)

    def decode(self, ids):
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    "tokenizer",
    [
        letters,
        WithEncode(),
        lambda text: np.array(letters(text)),
    ],
)
def test_what_returns_ids_is_a_tokenizer(tokenizer):
    found = ss.profile(tiny_llama(), [TEXT], tokenizer=tokenizer, positions=2)
    assert found.tokens["token_ids"].values[0].tolist() == IDS
    # Where there is no way back, tokens are shown by their ids.
    assert found.tokens["tokens"].values[0, 0] == ("T" if hasattr(tokenizer, "decode") else str(IDS[0]))


def test_a_tokenizer_of_tiktoken():
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"st": 256, b"ate": 257}
    tokenizer = tiktoken.Encoding(
        "tiny", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 298}
    )
    known = supported_tokenizer(tokenizer)
    assert supported_tokenizer(known) is known
    assert special_ids(known) == ({298}, {"eos": 298})
    expected = [*tokenizer.encode_ordinary("a state<|endoftext|>"), 298]
    assert text_sequence(known, "a state<|endoftext|>").tolist() == expected
    assert "".join(token_text(known, token) for token in expected) == "a state<|endoftext|><|endoftext|>"
    found = ss.profile(tiny_llama(), ["a state<|endoftext|>"], tokenizer=tokenizer, positions=1)
    assert found.tokens["token_ids"].values[0].tolist() == expected[:-1]


def test_others_stay_as_they_are():
    for tokenizer in (None, tiny_tokenizer(), ss.lab.zoo.tokenizer()):
        assert supported_tokenizer(tokenizer) is tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("gpt2", "got 'gpt2'"),
        (3, "got 3"),
        (str.split, "got <method"),
        (lambda text: None, "got <function"),
        (lambda text: [0.5], "got <function"),
    ],
)
def test_what_encodes_nothing_is_refused_before_the_work(tokenizer, message):
    for inputs in ([TEXT], [[5, 6, 7]]):
        with pytest.raises(ss.errors.InputError, match=f"^tokenizer must .*{message}"):
            ss.profile(tiny_llama(), inputs, tokenizer=tokenizer)
