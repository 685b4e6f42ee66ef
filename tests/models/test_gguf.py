"""GGUF files: dequantised, measured and named as what they are, or refused in one line."""

from itertools import pairwise

import gguf
import pytest
import torch
from oracles.gguf_files import write_gguf, write_sentencepiece
from oracles.pretrained import TEXT, tiny_llama, tiny_tokenizer

import statesize as ss
from statesize.cli import main
from statesize.models.files import parsed_once
from statesize.models.load import load_model, load_model_facts, load_tokenizer
from statesize.texts.tokens import plain_ids


def one_line(error):
    return "\n" not in str(error.value)


def test_weights_and_tokenizer_are_those_of_the_file(tmp_path):
    loaded = load_model(str(write_gguf(tmp_path / "tiny.gguf")))
    assert (loaded.name, loaded.source) == ("tiny.gguf", {"kind": "gguf", "weights": "Q8_0, dequantised"})
    for name, weight in tiny_llama().state_dict().items():
        step = weight.abs().max() / 127
        assert (loaded.model.state_dict()[name] - weight).abs().max() <= 0.6 * step, name
    assert loaded.tokenizer(TEXT).input_ids == tiny_tokenizer()(TEXT).input_ids
    assert load_model_facts(str(tmp_path / "tiny.gguf"))[1] == 300


def test_a_profile_names_how_its_weights_were_stored(tmp_path, capsys):
    path = str(write_gguf(tmp_path / "tiny.gguf"))
    found = ss.profile(path, [TEXT])
    assert found.attributes["source"] == {"kind": "gguf", "weights": "Q8_0, dequantised"}
    assert "GGUF file, weights Q8_0, dequantised" in found.to_html(tmp_path / "page.html").read_text()
    (tmp_path / "text.txt").write_text(TEXT)
    capsys.readouterr()
    assert main(["profile", path, "--text", str(tmp_path / "text.txt")]) == 0
    said = capsys.readouterr()
    assert "\nweights: Q8_0, dequantised" in said.out
    assert "it/s" not in said.err


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    path, parsed = write_gguf(tmp_path / "tiny.gguf"), []
    read = gguf.GGUFReader.__init__
    monkeypatch.setattr(gguf.GGUFReader, "__init__", lambda self, file: parsed.append(file) or read(self, file))
    load_model(str(path))
    assert parsed == [str(path)]


def test_the_reader_of_vocabularies_reads_what_ggufs_own_reads(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    plain = gguf.GGUFReader(path)
    with parsed_once():
        found = gguf.GGUFReader(path)

    def fields(reader):
        return {
            name: (field.types, [bytes(field.parts[at]) for at in field.data]) for name, field in reader.fields.items()
        }

    assert fields(found) == fields(plain)
    assert [tensor.data_offset for tensor in found.tensors] == [tensor.data_offset for tensor in plain.tensors]


def test_what_transformers_loaded_is_measured(tmp_path):
    """It says that it is quantised, though each of its weights is in floating point."""
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "tiny.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    assert model.is_quantized
    found, expected = ss.profile(model, [[5, 6, 7, 8, 9]]), ss.profile(str(path), [[5, 6, 7, 8, 9]])
    assert found.attributes["source"] == {"weights": "gguf, dequantised"}
    for name in expected.mixers:
        assert found.mixer(name)["entropy"].identical(expected.mixer(name)["entropy"])


def test_tensors_that_are_missing_are_named(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", without=("blk.1.attn_q.weight",))
    with pytest.raises(
        ss.errors.FileError, match=r"tiny\.gguf lacks 1 of .*model\.layers\.1\.self_attn\.q_proj\.weight"
    ):
        load_model(str(path))


def test_more_layers_than_there_are(tmp_path):
    with pytest.raises(ss.errors.FileError, match=r"lacks 9 of the model's 30 weights"):
        load_model(str(write_gguf(tmp_path / "three.gguf", layers=3)))
    with pytest.raises(ss.errors.FileError, match=r"num_hidden_layers of .* must be from 0 to 10,000, got 2,000,000"):
        load_model(str(write_gguf(tmp_path / "many.gguf", layers=2_000_000)))


@pytest.mark.parametrize("kept", [4, 30, 0.2, 0.9])
def test_a_file_that_is_cut_off(tmp_path, kept):
    path = write_gguf(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    for read in (load_model, ss.load):
        with pytest.raises(ss.errors.FileError, match=r"tiny\.gguf cannot be loaded: ") as error:
            read(str(path))
        assert one_line(error)


def test_a_file_of_another_name(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf").rename(tmp_path / "tiny.bin")
    with pytest.raises(ss.errors.FileError, match=r"tiny\.bin must have a name that ends in \.gguf"):
        load_model(str(path))


def test_without_the_package_that_reads_them(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("statesize.models.files.find_spec", lambda package: None)
    with pytest.raises(
        ss.errors.FileError, match=r"needs the packages gguf and accelerate: pip install 'statesize\[gguf\]'"
    ):
        load_model(str(path))


def test_weights_that_are_not_quantised_are_not_called_so(tmp_path):
    from gguf import GGMLQuantizationType

    loaded = load_model(str(write_gguf(tmp_path / "tiny.gguf", GGMLQuantizationType.F16)))
    assert loaded.source["weights"] == "F16"
    assert torch.equal(loaded.model.lm_head.weight.float(), tiny_llama().lm_head.weight.half().float())


@pytest.mark.parametrize(
    ("splitter", "parts"),
    [
        ("smollm", ["a", "ĠĠĠ", "1", "2", ";"]),
        ("gpt-2", ["a", "ĠĠ", "Ġ12", ";"]),
        ("glm4", ["a", "ĠĠ", "Ġ", "12", ";"]),
        ("stablelm2", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
        ("grok-2", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
        ("seed-coder", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
        ("bailingmoe", ["a", "ĠĠ", "Ġ", "1", "2", ";"]),
        ("deepseek-v3", ["a", "ĠĠĠ", "12", ";"]),
        ("falcon", ["a", "ĠĠ", "Ġ12", ";"]),
    ],
)
def test_text_is_split_as_the_file_says(tmp_path, splitter, parts):
    tokenizer = load_model(str(write_gguf(tmp_path / "tiny.gguf", splitter=splitter))).tokenizer
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a   12;")
    assert [part for part, _ in split] == parts


def test_an_unknown_splitter_is_told_and_kept(tmp_path):
    path = str(write_gguf(tmp_path / "tiny.gguf", splitter="of tomorrow"))
    with pytest.warns(UserWarning, match="'of tomorrow'"):
        found = ss.profile(path, [TEXT])
    assert "'of tomorrow'" in found.attributes["source"]["tokenizer"]


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
    ids = ([259 + LEARNED.index(one)] if one in LEARNED else [3 + byte for byte in one.encode()] for one in symbols)
    return [token for some in ids for token in some]


@pytest.mark.parametrize(
    ("fields", "ahead"), [({}, True), ({"add_space_prefix": True}, True), ({"add_space_prefix": False}, False)]
)
@pytest.mark.parametrize("text", ["ab ba", " ab", "  b a", "é\nab  "])
def test_a_space_ahead_of_the_text_is_the_files(tmp_path, fields, ahead, text):
    tokenizer = load_tokenizer(str(write_sentencepiece(tmp_path / "tiny.gguf", LEARNED, **fields)))
    ids = plain_ids(tokenizer, text)
    assert ids == merged(text, ahead)
    assert tokenizer.decode(ids) == text
