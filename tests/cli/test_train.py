"""`statesize lab train text`: a run on a small file, its outputs, resuming, interruption and bad input."""

import json
import random
from dataclasses import dataclass

import pytest
import torch

from statesize.cli import main
from statesize.lab.mixers import load_checkpoint

WORDS = "state memory token layer gate decay query key value rank past future".split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    generator = random.Random(0)  # noqa: S311
    documents = [" ".join(generator.choices(WORDS, k=30)) for _ in range(60)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


SMALL = ["--steps", "4", "--batch", "2", "--length", "16", "--evaluate-every", "2", "--checkpoint-every", "2"]


@dataclass
class Done:
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """`statesize lab train text …` in this process, on one thread."""
    threads = torch.get_num_threads()

    def call(*arguments):
        capsys.readouterr()
        code = main(["lab", "train", "text", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    yield call
    torch.set_num_threads(threads)


def test_a_run_leaves_a_model_a_log_and_a_report_on_stdout(run, text, tmp_path):
    done = run("--mixer", "wla", "--output", tmp_path / "run", "--text", text, "--json", *SMALL)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mixer"] == "wla"
    assert 0 < report["bits_per_byte"] < 8
    assert "sequence_accuracy" not in report
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best",
        "log.jsonl",
        "state.safetensors",
        "tokenizer.json",
    }
    assert load_checkpoint(tmp_path / "run" / "best").config.mixer == "wla"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--mixer", "mambo"], 2, "mambo"),
        (["--mixer", "gla", "--steps", "0"], 2, '"0" for --steps'),
        (["--mixer", "gla", "--resume"], 1, "must hold a run to resume"),
    ],
)
def test_bad_arguments_give_one_clear_line(arguments, code, said, run, text, tmp_path):
    done = run("--output", tmp_path / "run", "--text", text, *arguments)
    assert done.code == code
    assert said in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()
