"""A layer that cannot be measured ends no command: the others are, the cause is told, and the exit code is 0."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from statesize.cli import main
from statesize.lab import zoo

CODE = '''
import torch
from transformers import LlamaForCausalLM


class LooksAhead(LlamaForCausalLM):
    """Llama of which some layers attend to all positions."""

    def __init__(self, config):
        super().__init__(config)
        for index in config.looking:
            self.model.layers[index].self_attn.register_forward_pre_hook(look_ahead, with_kwargs=True)


def look_ahead(module, args, kwargs):
    length = kwargs["hidden_states"].shape[1]
    return args, kwargs | {"attention_mask": torch.zeros(1, 1, length, length)}
'''
LOST = "model.layers.1.self_attn"
COMMANDS = {
    "profile": ("--max-tokens", "24", "--sequences", "1"),
    "truncate": ("--max-tokens", "24", "--sequences", "1"),
    "lab length": ("--lengths", "6,8", "--excerpts", "2"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes a checkpoint of which some layers attend to all positions, by code that lies beside its weights."""

    def made(*looking):
        path = tmp_path_factory.mktemp("looks_ahead")
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
        none = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            LlamaForCausalLM(LlamaConfig(vocab_size=4096, looking=looking, **shape, **none)).save_pretrained(path)
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        config["auto_map"] = {"AutoModelForCausalLM": "looks_ahead.LooksAhead"}
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (path / "looks_ahead.py").write_text(CODE, encoding="utf-8")
        zoo.tokenizer().save(str(path / "tokenizer.json"))
        return path

    return made


def run(command, path, capsys, *options):
    code = main([*command.split(), str(path), "--trust-remote-code", *COMMANDS.get(command, ()), *options])
    return code, *capsys.readouterr()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "command", [pytest.param(one, marks=() if one in ("profile", "truncate") else pytest.mark.slow) for one in COMMANDS]
)
def test_the_others_are_measured_and_the_cause_is_told(command, folder, capsys):
    code, out, _ = run(command, folder(1), capsys)
    assert code == 0
    assert f"Mixer {LOST} attends to later positions" in out
    assert "model.layers.2.self_attn" in out or command == "truncate"


@pytest.mark.few(2)
@pytest.mark.parametrize("command", ["profile", "truncate", "lab length"])
def test_where_nothing_can_be_measured_it_is_an_error(command, folder, capsys):
    code, out, err = run(command, folder(0, 1, 2), capsys)
    assert (code, out) == (1, "")
    assert "Mixer model.layers.0.self_attn attends to later positions" in err
