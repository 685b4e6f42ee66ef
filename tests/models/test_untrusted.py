"""Files from strangers: nothing in them is run."""

import json

import pytest
import torch

from statesize.errors import FileError
from statesize.models.load import load_model


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_weights_are_not_unpickled(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"weight": Bomb(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="--allow-pickle"):
        load_model(str(tmp_path))
    with pytest.raises(FileError, match="cannot be loaded") as error:
        load_model(str(tmp_path), allow_pickle=True)
    # torch proposes to run what the file holds.
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_code_of_a_model_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="--trust-remote-code"):
        load_model(str(tmp_path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "stated",
    [
        {"attn_implementation": "some/kernel"},
        {"text_config": {"_attn_implementation": "some/kernel"}},
        {"_experts_implementation_internal": "some/kernel"},
    ],
)
def test_a_configuration_names_no_code_of_the_hub(tmp_path, stated):
    """A kernel of the hub is code, which transformers would fetch and run where the package kernels is there."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | stated))
    with pytest.raises(FileError, match="'some/kernel'"):
        load_model(str(tmp_path))
