import json
from typing import get_args

import pytest

from statesize.benchmarks.cases import cases
from statesize.benchmarks.model_cases import model_cases
from statesize.cli import main
from statesize.cli.bench_models import Case
from statesize.spectra.engine import ENGINES

ROW = {"case", "output", "length", "ratio", "seconds", "error", "miscounts", "peak_bytes", "engine", "dense_positions"}


def test_wrong_usage(capsys, tmp_path):
    assert main(["bench", "engines", "--threads", "0"]) == 2
    assert main(["bench", "engines", "--length", "16"]) == 2
    (tmp_path / "file").touch()
    assert main(["bench", "engines", "--output", str(tmp_path / "file" / "result.json")]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_quick_run(run):
    done = run("bench", "engines", "--quick", "--json", "--output", "result.json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert json.loads((run.folder / "result.json").read_text(encoding="utf-8")) == document
    assert (document["schema"], document["threads"]) == (1, 1)
    assert set(document["exponents"]) == set(ENGINES)
    assert set(document["versions"]) >= {"statesize", "torch", "python"}
    expected = [(case.name, output) for case in cases(quick=True) for output in case.outputs]
    assert [(row["case"], row["output"]) for row in document["rows"]] == expected
    for row in document["rows"]:
        assert set(row) >= ROW
        assert row["miscounts"] == 0
    assert done.stderr.count("\n") == len(expected) + 1


def test_wrong_usage_of_models(capsys, tmp_path):
    assert main(["bench", "models", "--case", "gpt"]) == 2
    assert main(["bench", "models", "--length", "2"]) == 2
    (tmp_path / "file").touch()
    assert main(["bench", "models", "--output", str(tmp_path / "file" / "result.json")]) == 1
    assert capsys.readouterr().out == ""


def test_names_of_models():
    assert get_args(Case) == tuple(case.name for case in model_cases(quick=False))


@pytest.mark.slow
def test_a_quick_run_of_models(run):
    done = run("bench", "models", "--quick", "--json", "--case", "llama_3", "--case", "mamba_2", "--output", "x.json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert json.loads((run.folder / "x.json").read_text(encoding="utf-8")) == document
    assert [(row["case"], row["length"]) for row in document["rows"]] == [("llama_3", 192), ("mamba_2", 192)]
    assert done.stderr.count("\n") == 3
