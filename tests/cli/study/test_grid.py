"""`statesize lab study`: its documents, a kill, and bad input."""

import json
import subprocess
import sys

import pytest

from statesize.cli import main
from statesize.lab.studies import study

SMALL = """
from small_studies import GRID
from statesize.lab.studies import study
from statesize.lab.studies.correlation import Correlation
from dataclasses import replace

@study("small")
class Small(Correlation):
    presets = {"smoke": GRID, "longer": replace(GRID, training=GRID.training | {"steps": 40})}
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SMALL, encoding="utf-8")
    return ["--plugin", str(path)]


def test_the_document(plugin, tmp_path, capsys):
    folder = tmp_path / "study"
    arguments = [*plugin, "--output", str(folder)]
    assert main(["lab", "study", "small", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["study"], document["preset"], document["runs"]) == ("small", "smoke", 8)
    assert document["table"] == str(folder / "table.parquet")
    assert any(name.startswith("control_") for name in document["figures"])
    assert 1 <= err.count("run ") <= 8
    assert main(["lab", "study", "small", *arguments]) == 0
    out, err = capsys.readouterr()
    assert "Caveats" in out
    assert "run " not in err
    assert main(["lab", "study", "regimes", *arguments]) == 1
    assert "with runs of small" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["correlation", "initialisation", "regimes", "regularisation", "hybrids", "delimiters"]
)
def test_each_study_has_a_small_grid_of_its_own(name):
    assert study[name]().runs(study[name]().preset("smoke"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["correlation", "--preset", "desktop"], "preset must be one of smoke, laptop, record, got 'desktop'"),
        (["corelation"], "got 'corelation'"),
        (["correlation", "--from", "sa"], "from must be left out for a study that trains its models, got 'sa'"),
        (["correlation", "--text", "a"], "from must be left out for a study that trains its models, got 'a'"),
    ],
)
def test_what_is_not_there_is_refused(arguments, message, capsys):
    assert main(["lab", "study", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_studies_are_listed_without_torch():
    program = "import sys; from statesize.cli import main; main(['lab', 'study']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "regimes: Which mixers fill their state" in done.stdout
