"""Stored results are shown again: a profile by `statesize profile FOLDER`, a study by `statesize study FOLDER`."""

import contextlib
import io
import json
import os
import shutil
import warnings
from pathlib import Path

import altair as alt
import pytest

import statesize as ss
from statesize.cli import main
from statesize.lab.studies.engine.conclusion import Conclusion
from statesize.lab.studies.engine.run import write_page
from statesize.lab.studies.engine.table import table_content

TEXT = "text.txt"


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    """A folder with a profile and its page, and what the command printed."""
    folder, printed = tmp_path_factory.mktemp("made"), io.StringIO()
    options = ["--text", TEXT, "--output", "result", "--html", "first.html", "--metric", "relative_count"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        (folder / TEXT).write_text("The quick brown fox returns a list.\n", encoding="utf-8")
        assert main(["profile", str(checkpoint), *options]) == 0
    (folder / TEXT).unlink()
    return folder, printed.getvalue()


@pytest.fixture
def saved(made, here):
    folder, printed = made
    shutil.copytree(folder, here, dirs_exist_ok=True)
    return printed


def test_a_profile_has_the_table_and_the_page_of_its_run(saved, here, capsys):
    assert main(["profile", "result", "--html", "again.html", "--metric", "relative_count"]) == 0
    captured = capsys.readouterr()
    assert captured.out == saved
    assert captured.err == "Report: again.html\nnext (all layers and columns): statesize profile result --wide\n"
    assert (here / "again.html").read_bytes() == (here / "first.html").read_bytes()
    assert main(["profile", "result", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == "result"
    assert sorted(os.listdir(here)) == ["again.html", "first.html", "result"]


def test_a_page_has_the_command_and_the_versions_that_made_it(saved, here):
    page = (here / "first.html").read_text(encoding="utf-8")
    assert f"--text {TEXT} --output result --html first.html" in page
    assert "transformers 5" in page


@pytest.mark.slow
def test_same_bytes_in_every_process(saved, here, run):
    arguments = ("profile", here / "result", "--html", here / "other.html", "--metric", "relative_count")
    assert run(*arguments, PYTHONHASHSEED="1").returncode == 0
    assert (here / "other.html").read_bytes() == (here / "first.html").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--text", "x"],
        ["--positions", "3"],
        ["--dtype", "float64"],
        ["--output", "other"],
        ["--tolerance", "0.1"],
    ],
    ids=" ".join,
)
def test_a_profile_is_not_measured_anew(saved, options, capsys):
    assert main(["profile", "result", *options]) == 2
    assert "result is a profile, which is shown as it was measured" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_called_as_a_bundled_model_is_its_profile_s_place(here, text, capsys):
    command = ["profile", "gla", "--text", str(text), "--positions", "2", "--output", "gla"]
    for _ in range(2):
        assert main(command) == 0
        assert "Profile: gla" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*command, "--max-tokens", "8"]) == 0
    assert "warning: gla holds another profile: of gla over 1 sequence, " in capsys.readouterr().err
    # A bundled name stands for the model and not for the folder.
    assert ss.load("gla")


def test_a_profile_is_not_a_model(saved, capsys):
    assert main(["truncate", "result"]) == 1
    assert "result is a profile, not a model. Give the model;" in capsys.readouterr().err
    for given in ("result", Path("result"), Path("result") / "profile.json"):
        with pytest.raises(
            ss.errors.FileError, match=r"is a profile, not a model.*statesize\.Profile\.load\('result'\)"
        ):
            ss.load(given)


def test_bad_places_and_results(saved, here, capsys):
    assert main(["profile", "result", "--html", "result"]) == 1
    assert "is a folder" in capsys.readouterr().err
    marker = here / "result" / "profile.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"schema": 99}))
    assert main(["profile", "result", "--html", "page.html"]) == 1
    assert "schema version 99" in capsys.readouterr().err
    assert sorted(os.listdir(here)) == ["first.html", "result"]


def test_study(here, capsys):
    (here / "study").mkdir()
    assert main(["study", "study"]) == 1
    assert "folder must be that of a finished study, got study without conclusion.json" in capsys.readouterr().err
    (here / "study" / "runs").mkdir()
    (here / "study" / "table.parquet").write_bytes(table_content([{"kv": 1}, {"kv": 2}]))
    assert main(["study", "study"]) == 1
    assert "without conclusion.json" in capsys.readouterr().err
    chart = alt.vconcat(alt.Chart(alt.Data(values=[{"kv": 1}])).mark_point().encode(x="kv:Q"))
    said = Conclusion("regimes", "One claim.", True, {"pearson": 0.5}, ("Found.",), ("A caveat.",))
    write_page(said, chart, [{"kv": 1}, {"kv": 2}], here / "study", "statesize study regimes")
    assert main(["study", "study"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "Holds here: One claim. Found."
    assert captured.err == "next (all its figures): statesize study study --json\n"
    page = (here / "study" / "study.html").read_text(encoding="utf-8")
    assert "Holds here: One claim." in page
    assert "<dt>Command</dt><dd>statesize study regimes</dd>" in page
    assert main(["study", "study", "--json"]) == 0


def test_without_a_folder_the_studies_are_listed(capsys):
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    assert "recall: Do models" in out
