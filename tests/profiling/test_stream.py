"""Text in pieces gives the tokens of the whole text, and none is taken back."""

import numpy as np
import pytest
from oracles.pretrained import save_tiny, tiny_tokenizer
from tokenizers import Tokenizer

from statesize.lab import zoo
from statesize.models.load import load_tokenizer
from statesize.profiling.watching import TextStream
from statesize.texts.rows import read_documents
from statesize.texts.tokens import join_documents, special_ids, token_text

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


def streamed(tokenizer, parts, special_tokens=False):
    stream = TextStream(tokenizer, special_tokens)
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


def test_special_tokens_that_the_text_spells(tokenizer):
    generator, end = np.random.default_rng(0), special_ids(tokenizer)[1]["eos"]
    mark = token_text(tokenizer, end)
    text = f"One{mark}text.\n\n  Another,{mark}\n\n{mark[:-1]} two{mark}{mark}\n \n" * 3
    whole = join_documents(tokenizer, [text], special_tokens=True).tolist()
    assert whole.count(end) == 12
    for _ in range(8):
        assert streamed(tokenizer, pieces(text, generator), special_tokens=True) == whole
    # What they spell is not cut where nothing else would end the text.
    unbroken = f"{'x' * 30}{mark}" * 30
    ids = streamed(tokenizer, pieces(unbroken, generator), special_tokens=True)
    assert (ids.count(end), decoded(tokenizer, ids)) == (30, unbroken)


def decoded(tokenizer, ids):
    return "".join(token_text(tokenizer, token) for token in ids)


def test_special_tokens_with_white_space_inside():
    tokenizer = zoo.tokenizer()
    tokenizer.add_special_tokens(["<end of turn>"])
    mark = tokenizer.token_to_id("<end of turn>")
    text = "One <end of text <end of turn>Two<end of turn>\n"
    whole = join_documents(tokenizer, [text], special_tokens=True).tolist()
    assert whole.count(mark) == 2
    for seed in range(8):
        assert streamed(tokenizer, pieces(text, np.random.default_rng(seed)), special_tokens=True) == whole


def test_a_beginning_that_the_text_spells():
    tokenizer = tiny_tokenizer(bos=True)
    for text in ("<s>a state of", "a state of"):
        whole = tokenizer("a state of").input_ids
        assert streamed(tokenizer, pieces(text, np.random.default_rng(0)), special_tokens=True) == whole


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
