"""`statesize lab train text`: a run on a small file, its outputs, resuming, interruption and bad input."""

import json
import random
import signal
import subprocess
import sys
import time
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


@pytest.mark.slow  # the loop resumes in tests of its own
def test_an_interrupted_run_exits_130_and_resumes_to_the_same_weights(run, text, tmp_path):
    arguments = ["--mixer", "la", "--text", text, "--steps", "24", *SMALL[2:]]
    code = "import sys; from statesize.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "lab", "train", "text"]
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--output", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "best" / "config.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    told = f"what is finished is in {tmp_path / 'run'}; the same command with --resume goes on from there"
    assert told in stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) < 24
    few = ["--sequences", "1", "--max-tokens", "16"]
    assert main(["profile", str(tmp_path / "run" / "best"), "--text", str(text), *few]) == 0
    resumed = run(*arguments, "--output", tmp_path / "run", "--resume")
    assert resumed.code == 0, resumed.stderr
    whole = run(*arguments, "--output", tmp_path / "whole")
    assert whole.stdout == resumed.stdout
    models = [load_checkpoint(tmp_path / name / "best").state_dict() for name in ("run", "whole")]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name


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


def test_a_text_that_is_not_utf8_is_refused(run, tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1") * 50)
    done = run("--mixer", "gla", "--output", tmp_path / "run", "--text", tmp_path / "latin.txt")
    assert done.code == 1
    assert "UTF-8" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten(run, text, tmp_path):
    arguments = ["--mixer", "sa", "--output", tmp_path / "run", "--text", text, *SMALL]
    assert run(*arguments).code == 0
    before = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    again = run(*arguments)
    assert again.code == 1
    assert "Resume, or give another." in again.stderr
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused_before_training(run, text, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run("--mixer", "gla", "--text", text, "--output", tmp_path / "taken" / "below", *SMALL)
    assert done.code == 1
    assert "cannot write" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("name", ["tokenizer.json", "profile.json", "notes.txt"])
def test_a_folder_of_something_else_is_left_alone(run, text, tmp_path, name):
    (tmp_path / name).write_text("mine")
    done = run("--mixer", "gla", "--text", text, "--output", tmp_path, *SMALL)
    assert done.code == 1
    assert f"got {tmp_path} with {name}" in done.stderr
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
