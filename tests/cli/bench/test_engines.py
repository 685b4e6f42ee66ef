import json
import re
from functools import partial
from typing import get_args

import pytest

from statesize.benchmarks import engines
from statesize.benchmarks import engines as growth
from statesize.benchmarks.cases import cases, gated
from statesize.benchmarks.models import model_cases
from statesize.cli import main
from statesize.cli.bench import Case
from statesize.spectra.choice import ENGINES

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
    # A line a row and an exponent, and where the document is.
    assert done.stderr.count("\n") == len(expected) + len(ENGINES) + 1


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


def test_the_table_of_engines(capsys, monkeypatch, tmp_path):
    chosen = [case for case in cases(quick=True) if case.name == "gated n=64"]
    monkeypatch.setattr(engines, "cases", lambda quick: chosen)
    monkeypatch.setattr(growth, "_OPERATORS", {"chunked": partial(gated, states=4)})
    path = tmp_path / "result.json"
    assert main(["bench", "engines", "--quick", "--length", "128", "--output", str(path)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert err.endswith(f"Benchmark: {path}\n")
    _, *lines, empty, growing, under = out.splitlines()
    for line, row in zip(lines, document["rows"], strict=True):
        cells = re.split(" {2,}", line)
        assert cells[:4] == [row["case"], row["engine"], row["output"], str(row["length"])]
        assert float(cells[4].removesuffix("×").replace(",", "")) == pytest.approx(row["ratio"], rel=0.1, abs=0.06)
        assert cells[5] == f"{row['seconds']:.3f}"
        assert cells[7] == ("-" if row["output"] == "counts" else f"{row['error']:.1e}")
        assert cells[8] == f"0/{row['checked']}"
    assert empty == ""
    assert growing == f"Cost grows with L to the power of: chunked {document['exponents']['chunked']:.2f}."
    assert under.startswith("The dense loop was timed at 8 positions and scaled to all; 1 thread for both sides, ")


def test_the_table_of_models(capsys, tmp_path):
    path = tmp_path / "result.json"
    command = ["bench", "models", "--quick", "--case", "llama_3", "--length", "32", "--threads", "2"]
    assert main([*command, "--output", str(path)]) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert err.splitlines() == [f"bench models: Llama-3-8B: {row['seconds']:.3g} s", f"Benchmark: {path}"]
    _, line, empty, under, last = out.splitlines()
    cells = re.split(" {2,}", line)
    assert cells[:6] == ["Llama-3-8B", "attention", row["engine"], "32", "124", f"{row['seconds']:.1f}"]
    assert cells[10] == f"{row['ratio']:,.0f}×"
    assert cells[12] == f"32 in {row['model_seconds'] / 60:,.1f} min"
    assert empty == ""
    assert under.startswith(
        "The definition was timed at 8 positions of 2 heads or channels and scaled to all; 2 threads"
    )
    assert "and one relative tolerance, and entropy." in last
