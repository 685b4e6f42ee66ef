import json

import pytest

from statesize.benchmarks.cases import cases
from statesize.cli import main
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
