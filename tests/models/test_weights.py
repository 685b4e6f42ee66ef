"""A checkpoint that lacks weights is refused by their names; none is ever measured on random numbers."""

import json

import pytest
import torch
from oracles.pretrained import save_tiny, tiny_llama
from safetensors.torch import load_file, save_file

import statesize as ss
from statesize.errors import FileError, StatesizeWarning
from statesize.models.load import load_model

QUERY = "model.layers.1.self_attn.q_proj.weight"


def edited(folder, edit):
    """A folder whose tensors a function has changed."""
    save_tiny(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(edit(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def renamed(tensors):
    return {key.replace("1.self_attn.q_proj", "1.self_attn.query"): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("edit", "count", "named"),
    [
        (renamed, 1, QUERY),
        (lambda tensors: {}, 21, "lm_head.weight"),
        (lambda tensors: tensors | {"model.norm.weight": torch.ones(16)}, 1, r"model.norm.weight of shape \(16,\)"),
    ],
)
def test_weights_that_are_missing_or_of_another_shape_are_named(tmp_path, edit, count, named):
    folder = edited(tmp_path / "llama", edit)
    with pytest.raises(FileError, match=f"lacks {count} of the model's 21 weights.*{named}"):
        ss.load(folder)


def test_tied_weights_are_not_missing(tmp_path):
    from transformers import LlamaForCausalLM

    config = tiny_llama().config
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    torch.testing.assert_close(ss.load(str(tmp_path)).model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_model_without_its_head_is_measured_and_one_without_a_weight_refused(tmp_path):
    folder = save_tiny(tmp_path / "base")
    tiny_llama().model.save_pretrained(folder)
    loaded, ids = load_model(str(folder)), torch.arange(5, 25)[None]
    torch.testing.assert_close(loaded.model.state_dict(), tiny_llama().model.state_dict(), rtol=0, atol=0)
    whole, base = (ss.profile(model, ids) for model in (tiny_llama(), loaded.model))
    for with_head, alone in zip(whole.mixers, base.mixers, strict=True):
        assert (whole.mixer(with_head)["entropy"].values == base.mixer(alone)["entropy"].values).all()
    tensors = load_file(folder / "model.safetensors")
    del tensors["norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileError):
        load_model(str(folder))


def test_weights_that_go_unused_are_warned_of_and_kept(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(StatesizeWarning):
        profile = ss.profile(str(folder), [[5, 6, 7, 8, 9]])
    profile.save(tmp_path / "kept")
    kept = ss.Profile.load(tmp_path / "kept").attributes["source"]["unused_weights"]
    assert kept == profile.attributes["source"]["unused_weights"]
    assert "model.layers.1." in kept


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.int64])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.filterwarnings("ignore:.*of the checkpoint:UserWarning")
def test_quantised_weights_without_their_scales(tmp_path, dtype, sharded):
    folder, name = save_tiny(tmp_path / "m"), "model.layers.0.self_attn.q_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    scales = {"mask": torch.ones(4, 4, dtype=torch.uint8), name.replace("weight", "weight_scale"): torch.tensor(0.5)}
    tensors |= scales | {name: (tensors[name] * 500).to(dtype)}
    file = "model-00001-of-00001.safetensors" if sharded else "model.safetensors"
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / file, {"format": "pt"})
    if sharded:
        weights = {"metadata": {}, "weight_map": dict.fromkeys(tensors, file)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    with pytest.raises(FileError, match=name):
        ss.load(folder)


def test_a_model_is_no_longer_its_file(tmp_path):
    """Weights that are pages of their file would change with it, or end the process where it is cut off."""
    folder = save_tiny(tmp_path / "llama")
    loaded = load_model(str(folder)).model
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as stream:
        size = stream.seek(0, 2)
        stream.seek(size // 2)
        stream.write(bytes(size // 2))
        stream.truncate(size // 4)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(FileError):
        load_model(str(folder))
