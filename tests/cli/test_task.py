"""`statesize profile --task`: the prompts of a task of lm-eval, and the model's score on them."""

import json
import sys

import pytest
import torch

from statesize.adapters.models.model_state import logits_of
from statesize.cli import main
from statesize.models.load import load_model
from statesize.profiling import Profile
from statesize.texts.tokens import encode

TASK = """task: colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The colour of {{{{thing}}}} is"
doc_to_target: 0
doc_to_choice: ["blue", "green", "red"]
metric_list:
  - metric: acc
"""
THINGS = ("the sky", "a clear lake", "the deep sea")


@pytest.fixture
def task(tmp_path):
    rows, file = tmp_path / "rows.json", tmp_path / "colours.yaml"
    rows.write_text("\n".join(json.dumps({"thing": thing}) for thing in THINGS), encoding="utf-8")
    file.write_text(TASK.format(rows=rows), encoding="utf-8")
    return file


@pytest.mark.filterwarnings("ignore")
def test_prompts_are_measured_and_the_score_stands_beside_the_ess(task, checkpoint, here, capsys, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(here / "cache"))
    assert main(["profile", str(checkpoint), "--task", str(task), "--sequences", "2", "--output", "result"]) == 0
    loaded = load_model(str(checkpoint))
    prompts = [encode(loaded.tokenizer, f"The colour of {thing} is") for thing in THINGS[:2]]
    result = Profile.load("result")
    read = [
        row[:length] for row, length in zip(*(result.tokens[n].values for n in ("token_ids", "length")), strict=True)
    ]
    assert [list(row) for row in read] == prompts

    def likelihood(thing, answer):
        ids = torch.tensor([encode(loaded.tokenizer, f"The colour of {thing} is {answer}")])
        start = len(encode(loaded.tokenizer, f"The colour of {thing} is"))
        found = logits_of(loaded.model, ids[:, :-1])[0].log_softmax(-1)[start - 1 :]
        return float(found.gather(1, ids[0, start:, None]).sum())

    answers = [[likelihood(thing, answer) for answer in ("blue", "green", "red")] for thing in THINGS[:2]]
    right = sum(one.index(max(one)) == 0 for one in answers) / 2
    printed = capsys.readouterr().out
    assert f"task: colours: acc {right:.3g} on 2 documents (lm-eval " in printed


def test_a_task_without_the_package_names_the_extra(task, checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert main(["profile", str(checkpoint), "--task", str(task)]) == 1
    assert "pip install 'statesize[lm-eval]'" in capsys.readouterr().err


def test_a_task_comes_alone(task, checkpoint, capsys):
    assert main(["profile", str(checkpoint), "--task", str(task), "--text", str(task)]) == 2
    assert "task must come without other texts and --ray" in capsys.readouterr().err
