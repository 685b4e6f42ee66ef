"""Text in pieces gives the tokens of the whole text, and none is taken back."""

import numpy as np
import pytest
from oracles.pretrained import save_tiny
from tokenizers import Tokenizer

from statesize import zoo
from statesize.profiling.loading import load_tokenizer
from statesize.profiling.text_stream import TextStream
from statesize.profiling.tokens import join_documents
from statesize.tasks.corpus import read_documents

TEXTS = {
    "one document": "The quick brown fox\nreturns  a list, doesn't it?",
    "several": "One text.\n\nAnother,  and\n  longer text.\n \t\n\n  Indented.\n\n\n\nThe last one.\n\n",
    "blank lines with spaces": "One.\n\n \n \t\n Two.\n  \nThree.",
    "blank lines first": "\n\n\nOne text.\n\nAnother.",
    "letters of a special token": "One <eos> text.\n\n<eos>",
    "signs": "naïve café — 日本語のテキスト 🙂🙂\n\nשלום",
    "white space only at the end": "One text.   \n\n   \n",
}


def pieces(text, generator):
    while text:
        size = int(generator.integers(1, 9))
        yield text[:size]
        text = text[size:]


def streamed(tokenizer, parts):
    stream = TextStream(tokenizer)
    given = [stream.feed(part) for part in parts]
    return [token for ids in [*given, stream.end()] for token in ids]


@pytest.fixture(scope="module", params=["bundled", "transformers"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bundled":
        return zoo.tokenizer()
    return load_tokenizer(str(save_tiny(tmp_path_factory.mktemp("models") / "llama")))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("seed", range(8))
def test_the_same_tokens_as_the_whole_text(tokenizer, text, seed, tmp_path):
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    whole = join_documents(tokenizer, read_documents(tmp_path / "text.txt")).tolist()
    assert streamed(tokenizer, pieces(text, np.random.default_rng(seed))) == whole
    assert streamed(tokenizer, [text]) == whole


def test_tokens_come_with_the_white_space_after_their_word():
    stream, tokenizer = TextStream(zoo.tokenizer()), zoo.tokenizer()
    assert stream.feed("retur") == []
    assert stream.feed("ns a") == tokenizer.encode("returns", add_special_tokens=False).ids
    assert stream.feed("\n") == tokenizer.encode(" a", add_special_tokens=False).ids
    # The blank line ends the document before anything follows it.
    assert stream.feed("\n") == [tokenizer.token_to_id("<eos>")]
    assert stream.end() == []


def test_long_documents_and_long_words():
    tokenizer = zoo.tokenizer()
    text = "\n".join(f"word{number}" for number in range(3000)) + "\n\nThe end"
    whole = join_documents(tokenizer, text.split("\n\n")).tolist()
    assert streamed(tokenizer, [text[at : at + 100] for at in range(0, len(text), 100)]) == whole
    # A word that never ends is not waited for.
    assert len(TextStream(tokenizer).feed("x" * 1000)) > 200
    stream = TextStream(tokenizer)
    given = [token for _ in range(40) for token in stream.feed("語" * 20)] + stream.end()
    assert tokenizer.decode(given) == "語" * 800


def test_without_a_token_between_documents():
    tokenizer = zoo.tokenizer()
    stripped = Tokenizer.from_str(tokenizer.to_str().replace("<eos>", "<other>"))
    text = "One text.\n\n\nAnother."
    expected = stripped.encode(text, add_special_tokens=False).ids
    assert streamed(stripped, pieces(text, np.random.default_rng(0))) == expected


@pytest.mark.parametrize("parts", [[], [""], ["\n\n", "\n"], ["  ", "\n \n"]])
def test_nothing(parts):
    assert streamed(zoo.tokenizer(), parts) == []
