"""A checkpoint that lacks weights is refused by their names; none is ever measured on random numbers."""

import json
import struct
import warnings

import pytest
import torch
from oracles.pretrained import save_tiny, tiny_llama
from safetensors.torch import load_file, save_file

import statesize as ss
from statesize.cli import main
from statesize.models.load import load_model


def edited(folder, edit):
    """A folder whose tensors a function has changed."""
    save_tiny(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(edit(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def set_config(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def renamed(tensors):
    name = "model.layers.1.self_attn.q_proj.weight"
    return {key.replace(name, "model.layers.1.self_attn.query.weight"): value for key, value in tensors.items()}


@pytest.mark.parametrize("read", [load_model, ss.load, ss.profile])
def test_weights_that_are_missing_are_named(tmp_path, read):
    folder = edited(tmp_path / "llama", renamed)
    with pytest.raises(
        ss.errors.FileError, match=r"lacks 1 of the model's 21 weights.*layers\.1\.self_attn\.q_proj\.weight"
    ):
        read(folder)


def test_a_file_without_tensors(tmp_path, capsys):
    folder = edited(tmp_path / "llama", lambda tensors: {})
    capsys.readouterr()
    assert main(["profile", folder, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "lacks 21 of the model's 21 weights, which would be random numbers: lm_head.weight, " in error
    assert error.count("\n") == 1


def test_weights_of_another_shape(tmp_path):
    folder = edited(tmp_path / "llama", lambda tensors: tensors | {"model.norm.weight": torch.ones(16)})
    with pytest.raises(
        ss.errors.FileError, match=r"1 of the .* another shape.*norm\.weight is \(16,\) and must be \(32,\)"
    ):
        load_model(folder)


def test_tied_weights_are_not_missing(tmp_path):
    from transformers import LlamaForCausalLM

    config = tiny_llama().config
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = ss.load(str(tmp_path))[0]
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.fixture
def base(tmp_path):
    """A folder of the model without its head, as `save_pretrained` of the base class writes it, and its tokenizer."""
    folder = save_tiny(tmp_path / "base")
    tiny_llama().model.save_pretrained(folder)
    return folder


def test_a_base_model_is_measured_without_a_head(base):
    loaded = load_model(str(base))
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().model.state_dict(), rtol=0, atol=0)
    ids = torch.arange(5, 25)[None]
    whole, found = (ss.profile(model, ids) for model in (tiny_llama(), loaded.model))
    for with_head, alone in zip(whole.mixers, found.mixers, strict=True):
        assert with_head == f"model.{alone}"
        assert (whole.mixer(with_head)["entropy"].values == found.mixer(alone)["entropy"].values).all()


def test_a_base_model_with_a_weight_missing_is_refused(base):
    tensors = load_file(base / "model.safetensors")
    del tensors["norm.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ss.errors.FileError, match=r"lacks 1 of the model's 20 weights.*: norm\.weight"):
        load_model(str(base))


def test_what_needs_logits_refuses_a_base_model_with_words(base, capsys):
    for command in ("truncate", "cache"):
        assert main([command, str(base), "--max-tokens", "96", "--quiet"]) == 1
        said = capsys.readouterr().err
        assert "LlamaModel must return logits" in said
        assert "Give the model with its head, such as AutoModelForCausalLM loads." in said


def test_weights_that_go_unused_are_told_and_kept(tmp_path, capsys):
    """A layer fewer in the configuration than in the file: the rest is measured, and it is said."""
    folder = save_tiny(tmp_path / "llama")
    set_config(folder, num_hidden_layers=1)
    with pytest.warns(UserWarning, match=r"No part of the model uses 9 weights of the checkpoint: model\.layers\.1\."):
        found = ss.profile(str(folder), [[5, 6, 7, 8, 9]])
    told = found.attributes["source"]["unused_weights"]
    assert told.startswith("No part of the model uses 9 weights of the checkpoint: ")
    found.save(tmp_path / "kept")
    assert ss.Profile.load(tmp_path / "kept").attributes["source"]["unused_weights"] == told
    assert told in found.to_html(tmp_path / "page.html").read_text()
    (tmp_path / "ids.json").write_text("[5, 6, 7, 8, 9]")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["profile", str(folder), "--text", str(tmp_path / "ids.json")]) == 0
    said = capsys.readouterr()
    assert f"statesize: warning: {folder}: No part of the model uses 9 weights" in said.err
    assert "note: No part of the model uses 9 weights of the checkpoint" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": -1}, "num_hidden_layers of .* must be from 0 to 10,000, got -1"),
        ({"num_hidden_layers": 2_000_000}, "must be from 0 to 10,000, got 2,000,000"),
        ({"text_config": {"num_hidden_layers": 2_000_000}}, "must be from 0 to 10,000, got 2,000,000"),
        ({"a": [{"b": {"n_layer": 10**9}}]}, "n_layer of .* must be from 0 to 10,000"),
        ({"text_config": {"_attn_implementation": "some/kernel"}}, "brings code of its own, the kernel 'some/kernel'"),
        ({"a": [{"attn_implementation": "some/kernel"}]}, "brings code of its own"),
        ({"_experts_implementation_internal": "some/kernel"}, "brings code of its own"),
    ],
)
def test_configurations_are_checked_at_every_depth(tmp_path, values, message):
    folder = save_tiny(tmp_path / "llama")
    set_config(folder, **values)
    with pytest.raises(ss.errors.FileError, match=message):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"llama must name its model_type in config\.json, got none\. Copy config\.json again\."),
        ('{"num_hidden_layers": 2}', "must name its model_type"),
        ("{", r"config\.json is damaged \(Expecting .*\)\. Copy it again\."),
    ],
)
def test_a_configuration_that_names_no_model(tmp_path, content, message):
    folder = save_tiny(tmp_path / "llama")
    (folder / "config.json").write_text(content)
    with pytest.raises(ss.errors.FileError, match=message):
        load_model(str(folder))


def test_weights_that_are_cut_off(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])
    with pytest.raises(ss.errors.FileError, match=r"not fully covered\. If its files are damaged, copy them again\."):
        load_model(str(folder))


def test_entries_that_are_there_twice(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("{", '{"num_hidden_layers": 1,', 1))
    with pytest.raises(ss.errors.FileError, match="it names 'num_hidden_layers' twice in one object"):
        load_model(str(folder))


def in_shards(folder, shard):
    """A folder whose index says that all weights lie in one other file."""
    save_tiny(folder)
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


def test_shards_lie_in_their_folder(tmp_path):
    assert load_model(in_shards(tmp_path / "inside", "shard.safetensors")).name == "inside"
    save_tiny(tmp_path / "other")
    for number, shard in enumerate(("../other/model.safetensors", str(tmp_path / "other" / "model.safetensors"))):
        with pytest.raises(
            ss.errors.FileError, match=r"index\.json must name files of its own folder, got '.*other/model"
        ):
            load_model(in_shards(tmp_path / f"outside{number}", shard))


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": 3}', "{", '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none(tmp_path, content):
    folder = in_shards(tmp_path / "llama", "shard.safetensors")
    (tmp_path / "llama" / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ss.errors.FileError, match=r"index\.json must"):
        load_model(folder)


def test_headers_with_a_tensor_twice(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entry = json.dumps({"model.norm.weight": header["model.norm.weight"]})
    doubled = (json.dumps(header)[:-1] + "," + entry[1:]).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(doubled)) + doubled + content[8 + length :])
    with pytest.raises(ss.errors.FileError, match=r"'model\.norm\.weight' twice"):
        load_model(str(folder))


SCALES = (
    *("weight_scale", "weight_scale_inv", "weight_zero_point", "input_scale", "scales", "qscale", "absmax", "SCB"),
    *("weight.absmax", "weight.quant_state.bitsandbytes__nf4", "weight._scale", "weight_quantizer._amax"),
)


@pytest.mark.parametrize("scale", SCALES)
def test_scales_that_go_unused(tmp_path, scale):
    name = "model.layers.0.self_attn.q_proj"

    def in_bytes(tensors):
        weight = {f"{name}.weight": tensors[f"{name}.weight"].to(torch.float8_e4m3fn)}
        return tensors | weight | {f"{name}.{scale}": torch.tensor(0.5)}

    with pytest.raises(ss.errors.FileError, match=f"scales of quantised weights .*{scale}"):
        load_model(edited(tmp_path / "llama", in_bytes))


@pytest.mark.parametrize(
    "held",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("layers.1.", "layers.1._orig_mod."),
    ],
)
def test_names_of_what_held_the_model_are_left_out(tmp_path, held):
    folder = edited(tmp_path / "llama", lambda tensors: {held(name): weight for name, weight in tensors.items()})
    with pytest.warns(UserWarning, match=r"'(module\.)?_orig_mod\.' was left out of the names of its weights"):
        loaded = load_model(folder)
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().state_dict(), rtol=0, atol=0)
    assert "unused_weights" not in loaded.source


@pytest.mark.filterwarnings("ignore:.*was left out of the names:UserWarning")
def test_names_of_what_held_a_model_without_all_weights(tmp_path):
    def held(tensors):
        return {f"module.{name}": weight for name, weight in tensors.items() if name != "model.norm.weight"}

    with pytest.raises(ss.errors.FileError, match=r"lacks 1 of the model's 21 weights.*: model\.norm\.weight"):
        load_model(edited(tmp_path / "llama", held))


def test_a_damaged_tokenizer_beside_ids_is_named_with_what_removes_it(tmp_path, capsys):
    folder = save_tiny(tmp_path / "llama")
    (folder / "tokenizer.json").write_text("{")
    (tmp_path / "ids.json").write_text("[5, 6, 7, 8, 9]")
    arguments = ["profile", str(folder), "--text", str(tmp_path / "ids.json"), "--quiet"]
    assert main(arguments) == 1
    assert "Copy its files again, or remove them and give token ids (--ids FILE)." in capsys.readouterr().err
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert main(arguments) == 0


def test_scales_are_named_before_the_weights_that_they_belong_to(tmp_path):
    """As quanto saves them."""
    name = "model.layers.0.self_attn.q_proj.weight"

    def split(tensors):
        rest = {key: tensor for key, tensor in tensors.items() if key != name}
        return rest | {f"{name}._data": tensors[name].to(torch.int8), f"{name}._scale": torch.tensor(0.5)}

    with pytest.raises(ss.errors.FileError, match=r"scales of quantised weights .*q_proj\.weight\._scale"):
        load_model(edited(tmp_path / "llama", split))
