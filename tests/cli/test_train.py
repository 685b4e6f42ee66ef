"""`statesize train text`: a run on a small file, its outputs, resuming, export, interruption and bad input."""

import json
import random
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from cli.documents import assert_document

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
    """`statesize train text …` in this process, on one thread."""
    threads = torch.get_num_threads()

    def call(*arguments):
        capsys.readouterr()
        code = main(["train", "text", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    yield call
    torch.set_num_threads(threads)


def test_a_run_leaves_a_model_a_log_and_a_report_on_stdout(run, text, tmp_path):
    done = run("--mixer", "wla", "--output", tmp_path / "run", "--text", text, "--json", *SMALL)
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert_document("train", report)
    assert report["mixer"] == "wla"
    assert 0 < report["bits_per_byte"] < 8
    assert "sequence_accuracy" not in report
    assert "held-out loss" in done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best",
        "log.jsonl",
        "previous.safetensors",
        "provenance.json",
        "state.safetensors",
        "tokenizer.json",
        "tokenizer.json.sha256",
    }
    assert load_checkpoint(tmp_path / "run" / "best").config.mixer == "wla"


def test_export_holds_small_weights_and_the_record(run, text, tmp_path):
    arguments = ["--mixer", "gla", "--output", tmp_path / "run", "--text", text, "--threads", "1", "--json", *SMALL]
    first = run(*arguments)
    assert first.code == 0, first.stderr
    done = run(*arguments, "--resume", "--export", tmp_path / "exported")
    assert done.code == 0, done.stderr
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.json.sha256",
        "training.json",
    }
    assert (tmp_path / "exported" / "model.safetensors").stat().st_size < 3e6
    record = json.loads((tmp_path / "exported" / "training.json").read_text())
    words = ["statesize", "train", "text", *map(str, arguments), "--resume", "--export", str(tmp_path / "exported")]
    assert record["command"] == shlex.join(words)
    assert record["dtype"] == "float16"
    assert len(record["data"]["corpus_sha256"]) == 64
    assert [point["step"] for point in record["curve"]] == [1, 2, 3, 4]
    assert [point["step"] for point in record["held_out_curve"]] == [2, 4]
    # Few steps: the model is at the uniform distribution, far above what counting gives.
    assert record["baselines"]["trigram"]["bits_per_byte"] < record["baselines"]["unigram"]["bits_per_byte"]
    assert record["held_out"]["bits_per_byte"] == pytest.approx(json.loads(done.stdout)["bits_per_byte"])
    assert record["held_out"]["loss"] == pytest.approx(json.loads(first.stdout)["loss"], abs=1e-2)
    best = load_checkpoint(tmp_path / "run" / "best")
    exported = load_checkpoint(tmp_path / "exported")
    assert torch.equal(exported.embedding.weight, best.embedding.weight.half().float())
    assert main(["profile", str(tmp_path / "exported"), "--text", str(text), "--max-tokens", "16"]) == 0


def test_an_interrupted_run_exits_130_and_resumes_to_the_same_weights(run, text, tmp_path):
    arguments = ["--mixer", "la", "--text", text, "--steps", "60", *SMALL[2:], "--threads", "1"]
    command = [sys.executable, "-c", "import sys; from statesize.cli import main; sys.exit(main())", "train", "text"]
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--output", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "best" / "config.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) < 60
    assert main(["profile", str(tmp_path / "run" / "best"), "--text", str(text), "--max-tokens", "16"]) == 0
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
        (["--mixer", "gla", "--steps", "0"], 2, "--steps. Must be >= 1"),
        (["--mixer", "gla", "--threads", "0"], 2, "--threads. Must be >= 1"),
        (["--mixer", "gla", "--resume"], 1, "nothing to resume"),
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


@pytest.mark.parametrize("name", ["--output", "--export"])
def test_an_output_that_is_a_file_is_refused_before_training(name, run, text, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    other = {"--output": [], "--export": ["--output", tmp_path / "run"]}[name]
    done = run("--mixer", "gla", "--text", text, name, taken, *other, *SMALL)
    assert done.code == 1
    assert "must be a folder, got" in done.stderr
    assert taken.read_text() == "mine"
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten(run, text, tmp_path):
    arguments = ["--mixer", "sa", "--output", tmp_path / "run", "--text", text, "--threads", "1", *SMALL]
    assert run(*arguments).code == 0
    before = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    again = run(*arguments)
    assert again.code == 1
    assert "holds a training run; resume it" in again.stderr
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["--output", "--export"])
def test_a_place_that_cannot_be_written_is_refused_before_training(name, run, text, tmp_path):
    (tmp_path / "taken").write_text("mine")
    other = {"--output": [], "--export": ["--output", tmp_path / "run"]}[name]
    done = run("--mixer", "gla", "--text", text, name, tmp_path / "taken" / "below", *other, *SMALL)
    assert done.code == 1
    assert "cannot write" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_export_into_a_folder_of_other_things_is_refused_before_training(run, text, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run("--mixer", "gla", "--text", text, "--output", tmp_path / "run", "--export", tmp_path / "else", *SMALL)
    assert done.code == 0, done.stderr
    for taken in (tmp_path, tmp_path / "run" / "best"):
        run_folder = tmp_path.parent / f"{tmp_path.name}-run"
        done = run("--mixer", "gla", "--text", text, "--output", run_folder, "--export", taken, *SMALL)
        assert done.code == 1
        assert "holds no export; it is left alone" in done.stderr
        assert not run_folder.exists()


@pytest.mark.parametrize("export", ["run", "run/best", "."])
def test_an_export_over_the_run_itself_is_refused_before_training(export, run, text, tmp_path):
    done = run("--mixer", "gla", "--text", text, "--output", tmp_path / "run", "--export", tmp_path / export, *SMALL)
    assert done.code == 1
    assert "export must be a folder of its own" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_something_else_is_not_overwritten(run, text, tmp_path):
    (tmp_path / "tokenizer.json").write_text("mine")
    done = run("--mixer", "gla", "--text", text, "--output", tmp_path, *SMALL)
    assert done.code == 1
    assert "holds a tokenizer.json and no run" in done.stderr
    assert (tmp_path / "tokenizer.json").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
