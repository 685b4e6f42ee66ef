"""Model folders: round trips and what is refused."""

import json

import pytest
import torch

from statesize.errors import FileError, InputError
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint, mixer, save_checkpoint

MIXERS = mixer.names()


def model_of(name="gla"):
    config = ModelConfig(mixer=name, vocabulary_size=11, width=16, heads=2, layers=2, key_size=4)
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


TOKENS = torch.arange(11)[None]


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_saved_comes_back(name, tmp_path):
    model = model_of(name)
    save_checkpoint(model, tmp_path / "a" / "b", extra={"note": "kept"})
    loaded = load_checkpoint(tmp_path / "a" / "b")
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text())["extra"] == {"note": "kept"}
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"config.json", "model.safetensors"}


def test_a_hybrid_with_positions_comes_back_and_the_order_of_its_layers_is_checked(tmp_path):
    shape = {"vocabulary_size": 11, "width": 16, "heads": 2, "layers": 6, "key_size": 4}
    config = ModelConfig("gla,s6,sa", **shape, positions=12, normalised=True, tied=False)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).eval()
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == config
    assert [block.mixer.kind for block in loaded.blocks] == ["gla", "s6", "sa"] * 2
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    values = json.loads((tmp_path / "config.json").read_text())
    wrong = (({"mixer": "gla,sa,s6"}, r"layers\.1\.mixer"), ({"positions": 11}, "position_embedding"))
    for changes, name in (*wrong, ({"tied": True}, "output")):
        (tmp_path / "config.json").write_text(json.dumps({**values, **changes}))
        with pytest.raises(FileError, match=rf"does not fit its config\.json.*{name}"):
            load_checkpoint(tmp_path)


def test_half_precision_is_stored_small_and_upcast(tmp_path):
    model = model_of()
    save_checkpoint(model, tmp_path / "full")
    save_checkpoint(model, tmp_path / "half", dtype=torch.float16)
    loaded = load_checkpoint(tmp_path / "half")
    assert loaded.embedding.weight.dtype == torch.float32
    assert torch.equal(loaded.embedding.weight, model.embedding.weight.half().float())
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.7 * full


def test_weights_that_overflow_half_precision_are_refused_and_nothing_is_written(tmp_path):
    model = model_of()
    with torch.no_grad():
        model.norm.weight[0] = 1e6
    with pytest.raises(InputError, match=r"norm\.weight is not finite in torch\.float16"):
        save_checkpoint(model, tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_missing_or_damaged_is_named(name, content, tmp_path):
    save_checkpoint(model_of(), tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=rf"{name} must be that of a model"):
        load_checkpoint(tmp_path)
