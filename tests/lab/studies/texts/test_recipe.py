"""The recipe for Falcon Mamba, whose weights are not here: the page's commands on its shape with random weights."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import FalconMambaConfig, FalconMambaForCausalLM, PreTrainedTokenizerFast

from statesize.cli import main
from statesize.lab import zoo

PAGE = Path(__file__).parents[4] / "docs" / "appendix" / "models.md"
NAME = "tiiuae/falcon-mamba-7b"


@pytest.fixture(scope="module")
def falcon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("falcon")
    shape = {"hidden_size": 32, "intermediate_size": 64, "state_size": 16, "time_step_rank": 4, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FalconMambaForCausalLM(FalconMambaConfig(vocab_size=4096, **shape))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"}).save_pretrained(folder)
    return folder


def recipe():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if NAME in block)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_recipe_runs_to_its_end(falcon, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n\n".join(document[:500] for document in zoo.documents()[:8]), encoding="utf-8")
    for word, *arguments in recipe():
        assert word == "statesize"
        numbers = {"512": "32", "16": "2"}
        assert main([str(falcon) if one == NAME else numbers.get(one, one) for one in arguments]) == 0
    assert Path("falcon/page.html").stat().st_size > 10_000
    found = json.loads(Path("falcon-delimiters/conclusion.json").read_text("utf-8"))
    # One model decides no claim.
    assert found["holds"] is None
    printed = capsys.readouterr().out
    assert "mamba" in printed
