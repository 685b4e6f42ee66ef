"""Model folders: hybrids, half precision, and what is refused; each mixer's round trip stands in its contract."""

import json

import pytest
import torch
from oracles.draws import language_model

from statesize.errors import FileError, InputError
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint, save_checkpoint

SHAPE = {"vocabulary_size": 11, "width": 16, "heads": 2, "layers": 2, "key_size": 4}
TOKENS = torch.arange(11)[None]


@pytest.fixture
def model():
    return language_model(**SHAPE)


def test_a_hybrid_with_positions_comes_back_and_the_order_of_its_layers_is_checked(tmp_path):
    config = ModelConfig("gla,s6,sa", **(SHAPE | {"layers": 6}), positions=12, normalised=True, tied=False)
    model = LanguageModel(config, torch.Generator().manual_seed(0)).eval()
    save_checkpoint(model, tmp_path, extra={"note": "kept"})
    loaded, values = load_checkpoint(tmp_path), json.loads((tmp_path / "config.json").read_text())
    assert loaded.config == config
    assert [block.mixer.kind for block in loaded.blocks] == ["gla", "s6", "sa"] * 2
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert values["extra"] == {"note": "kept"}
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    wrong = (({"mixer": "gla,sa,s6"}, r"layers\.1\.mixer"), ({"positions": 11}, "position_embedding"))
    for changes, name in (*wrong, ({"tied": True}, "output")):
        (tmp_path / "config.json").write_text(json.dumps({**values, **changes}))
        with pytest.raises(FileError, match=rf"config\.json.*{name}"):
            load_checkpoint(tmp_path)


def test_half_precision_is_stored_small_and_upcast_and_what_overflows_is_not_written(model, tmp_path):
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_checkpoint(model, tmp_path / name, dtype=dtype)
    weight = load_checkpoint(tmp_path / "half").embedding.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.embedding.weight.half().float())
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.7 * full
    model.norm.weight.data[0] = 1e6
    with pytest.raises(InputError):
        save_checkpoint(model, tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_missing_or_damaged_is_named(name, content, model, tmp_path):
    save_checkpoint(model, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name):
        load_checkpoint(tmp_path)
