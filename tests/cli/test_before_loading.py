"""What can be refused without the weights of a model is refused before they are read."""

import shutil

import pytest
from oracles.attention_models import attention_model
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from statesize.cli import main
from statesize.lab import zoo


@pytest.fixture(scope="module")
def weightless(tmp_path_factory):
    """Folders of models whose weights cannot be read, and a short text."""
    folder = tmp_path_factory.mktemp("weightless")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"})
    mamba = MambaForCausalLM(MambaConfig(vocab_size=1024, hidden_size=8, num_hidden_layers=1))
    for name, model in (("llama", attention_model("llama", vocab_size=1024)), ("mamba", mamba)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        (folder / name / "model.safetensors").write_bytes(b"no weights")
    (folder / "short.txt").write_text("A few words.", encoding="utf-8")
    (folder / "one.txt").write_text("A", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cache llama --text short.txt", "inputs must have 6 pieces of 512 tokens, got 0"),
        (
            "cache mamba",
            "must have a cache of keys and values of transformers, got a MambaForCausalLM without",
        ),
        ("truncate llama --text short.txt", "inputs must have a text of 512 tokens, got"),
        ("truncate llama --cuts 600", "cuts must lie from 1 to 510"),
        ("network llama --text one.txt", "Texts must have 2 tokens of their own or more"),
        ("length llama --text short.txt --lengths 64,128", "lengths must hold two that fit into the texts"),
        ("compress llama --text one.txt --output small", "text must hold at least 3 different documents, got 1"),
    ],
)
def test_it_is_said_before_weights_are_read(weightless, here, capsys, arguments, said):
    shutil.copytree(weightless, here, dirs_exist_ok=True)
    assert main(arguments.split()) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_these_weights_cannot_be_read(weightless, monkeypatch, capsys):
    monkeypatch.chdir(weightless)
    assert main(["network", "llama"]) == 1
    assert "llama" in capsys.readouterr().err.splitlines()[-1]
