"""`statesize lab train text`: a run on a small file, its outputs and bad input."""

import json
import random

import pytest
import torch

from statesize.cli import main
from statesize.lab.mixers import load_checkpoint

WORDS = "state memory token layer gate decay query key value rank past future".split()
SMALL = ["--steps", "4", "--batch", "2", "--length", "16", "--evaluate-every", "2", "--checkpoint-every", "2"]


@pytest.fixture
def train(tmp_path):
    """`statesize lab train text …` on one thread, into a folder."""
    generator, text, threads = random.Random(0), tmp_path / "words.txt", torch.get_num_threads()  # noqa: S311
    documents = [" ".join(generator.choices(WORDS, k=30)) for _ in range(60)]
    text.write_text("\n\n".join(documents), encoding="utf-8")
    yield lambda *more: main(["lab", "train", "text", "--output", str(tmp_path / "run"), "--text", str(text), *more])
    torch.set_num_threads(threads)


def test_a_run_leaves_a_model_a_log_and_a_report_on_stdout(train, tmp_path, capsys):
    assert train("--mixer", "wla", "--json", *SMALL) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["mixer"] == "wla"
    assert 0 < report["bits_per_byte"] < 8
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"best", "log.jsonl", "state.safetensors", "tokenizer.json"}
    assert load_checkpoint(tmp_path / "run" / "best").config.mixer == "wla"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--mixer", "mambo"], 2, "mambo"),
        (["--mixer", "gla", "--steps", "0"], 2, '"0" for --steps'),
        (["--mixer", "gla", "--resume"], 1, "must hold a run to resume"),
    ],
)
def test_bad_arguments_give_one_clear_line(arguments, code, said, train, tmp_path, capsys):
    assert train(*arguments) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert not (tmp_path / "run").exists()
