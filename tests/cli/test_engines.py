import json

import pytest

from statesize.cli import main
from statesize.spectra.choice import ENGINES


def test_the_list(capsys):
    assert main(["engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(ENGINES)]] == list(ENGINES)
    assert main(["engines", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert [row["name"] for row in document["engines"]] == list(ENGINES)
    assert set(document["engines"][0]) == {"name", "operators", "outputs", "windows", "cost"}


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["--operator", "recurrence", "--states", "32", "--length", "512"], "small_state"),
        (["--operator", "recurrence", "--states", "4", "--outputs", "values", "--length", "64"], "square_root"),
        (["--operator", "recurrence", "--transition", "full", "--states", "4", "--length", "64"], "square_root"),
        (["--operator", "delta", "--states", "32", "--length", "512", "--units", "3"], "chunked"),
        (["--operator", "attention", "--length", "256", "--no-relative"], "tridiagonal"),
        (["--operator", "attention", "--length", "40", "--past", "8", "--future", "8"], "dense"),
        (["--operator", "convolution", "--length", "40", "--outputs", "values"], "convolution"),
    ],
)
def test_explain(arguments, taken, capsys):
    assert main(["engines", "--explain", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == [taken, "yes"]
    assert sorted(line.split()[0] for line in lines[1 : 1 + len(ENGINES)]) == sorted(ENGINES)
    assert main(["engines", "--explain", *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["taken"] == taken
    assert sorted(other["engine"] for other in document["others"]) == sorted(set(ENGINES) - {taken})
    assert all(other["reason"] for other in document["others"])


def test_bad_requests(capsys):
    assert main(["engines", "--explain", "--operator", "mamba"]) == 2
    assert main(["engines", "--explain", "--states", "0"]) == 2
    assert main(["engines", "--explain", "--past", "4000"]) == 1
    assert "past must be None or in 1 … 2047" in capsys.readouterr().err
