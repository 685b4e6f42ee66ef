"""GGUF files: dequantised, measured and named as what they are, or refused in one line."""

from itertools import pairwise

import gguf
import pytest
import torch
from models.gguf_files import write_gguf, write_sentencepiece
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer

import statesize as ss
from statesize.errors import FileError, StatesizeWarning
from statesize.models.gguf import quick_reading
from statesize.models.load import load_model, load_tokenizer
from statesize.texts.documents import context_length, vocabulary_size
from statesize.texts.tokens import plain_ids


def test_weights_and_tokenizer_are_those_of_the_file(tmp_path):
    loaded = load_model(str(write_gguf(tmp_path / "tiny.gguf")))
    assert (loaded.name, loaded.source) == ("tiny.gguf", {"kind": "gguf", "weights": "Q8_0, dequantised"})
    for name, weight in tiny_llama().state_dict().items():
        step = weight.abs().max() / 127
        assert (loaded.model.state_dict()[name] - weight).abs().max() <= 0.6 * step, name
    assert loaded.tokenizer(TEXT).input_ids == tiny_tokenizer()(TEXT).input_ids
    _, config = load_tokenizer(str(tmp_path / "tiny.gguf"))
    assert (vocabulary_size(config), context_length(config)) == (300, tiny_llama().config.max_position_embeddings)


def test_weights_that_are_not_quantised_are_not_called_so(tmp_path):
    loaded = load_model(str(write_gguf(tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F16)))
    assert loaded.source["weights"] == "F16"
    assert torch.equal(loaded.model.lm_head.weight.float(), tiny_llama().lm_head.weight.half().float())


def test_quick_reading_finds_the_tensors_and_numbers_that_ggufs_own_reader_finds(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    plain = gguf.GGUFReader(path)
    with quick_reading(path):
        quick = gguf.GGUFReader(path)
    assert [tensor.data_offset for tensor in quick.tensors] == [tensor.data_offset for tensor in plain.tensors]
    assert quick.fields.keys() == plain.fields.keys()
    for name, field in plain.fields.items():
        if not name.startswith("tokenizer."):
            assert quick.fields[name].contents() == field.contents()


@pytest.mark.parametrize("kept", [4, 30, 0.2, 0.9])
def test_a_file_that_is_cut_off(tmp_path, kept):
    path = write_gguf(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    with pytest.raises(FileError, match=r"tiny\.gguf cannot be loaded: [^\n]*$"):
        ss.load(str(path))


def test_a_file_of_another_name_and_packages_that_are_not_there(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("statesize.models.gguf.find_spec", lambda package: None)
    with pytest.raises(FileError):
        load_model(str(path))
    with pytest.raises(FileError, match="Rename"):
        load_model(str(path.rename(tmp_path / "tiny.bin")))


@pytest.mark.parametrize(
    ("splitter", "parts"),
    [
        ("smollm", ["a", "ĠĠĠ", "1", "2", ";"]),
        ("gpt-2", ["a", "ĠĠ", "Ġ12", ";"]),
        ("llama-bpe", ["a", "ĠĠ", "Ġ", "12", ";"]),
        ("glm4", ["a", "ĠĠ", "Ġ", "12", ";"]),
        ("stablelm2", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
        ("qwen2", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
    ],
)
def test_text_is_split_as_the_file_says(tmp_path, splitter, parts):
    tokenizer, _ = load_tokenizer(str(write_gguf(tmp_path / "tiny.gguf", splitter=splitter)))
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a   12;")
    assert [part for part, _ in split] == parts


def test_an_unknown_splitter_is_refused_by_name_where_text_is_read(tmp_path):
    path = str(write_gguf(tmp_path / "tiny.gguf", splitter="of tomorrow"))
    with pytest.raises(FileError, match="'of tomorrow'"):
        load_model(path)
    with pytest.warns(StatesizeWarning):
        model, tokenizer = ss.load(path)
    assert tokenizer is None
    assert ss.profile(model, [[5, 6, 7, 8, 9]]).mixers


LEARNED = [*("ab", "▁▁", "▁a", "▁ab", "▁ab▁", "ba", "▁b"), *"▁ab"]


def merged(text, ahead):
    """Tokens of SentencePiece as llama.cpp finds them: the best pair of neighbours becomes one, until there is none."""
    symbols = list(((" " if ahead else "") + text).replace(" ", "▁"))
    while True:
        pairs = [left + right for left, right in pairwise(symbols)]
        best = min((pair for pair in pairs if pair in LEARNED), key=LEARNED.index, default=None)
        if best is None:
            break
        at = pairs.index(best)
        symbols[at : at + 2] = [best]
    ids = ([259 + LEARNED.index(sign)] if sign in LEARNED else [3 + byte for byte in sign.encode()] for sign in symbols)
    return [token for tokens in ids for token in tokens]


@pytest.mark.parametrize(
    ("fields", "ahead"), [({}, True), ({"add_space_prefix": True}, True), ({"add_space_prefix": False}, False)]
)
@pytest.mark.parametrize("text", ["ab ba", " ab", "  b a", "é\nab  "])
def test_a_space_ahead_of_the_text_is_the_files(tmp_path, fields, ahead, text):
    tokenizer, _ = load_tokenizer(str(write_sentencepiece(tmp_path / "tiny.gguf", LEARNED, **fields)))
    ids = plain_ids(tokenizer, text)
    assert ids == merged(text, ahead)
    assert tokenizer.decode(ids) == text
