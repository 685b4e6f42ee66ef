"""Stored profiles are shown again by `statesize profile FOLDER`."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import statesize as ss
from statesize.cli import main


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    """A folder with a profile, and what the command printed."""
    folder, printed = tmp_path_factory.mktemp("made"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        Path("text.txt").write_text("The quick brown fox returns a list.\n", encoding="utf-8")
        patch.setattr("sys.argv", ["statesize", "profile", str(checkpoint), "--text", "text.txt"])
        assert main() == 0
    return folder, printed.getvalue()


@pytest.fixture
def saved(made, here):
    folder, printed = made
    shutil.copytree(folder / "small-profile", here / "result")
    return printed


def test_a_profile_and_its_page_are_kept_and_shown_again(saved, capsys):
    assert main(["profile", "result"]) == 0
    captured = capsys.readouterr()
    assert captured.out == saved
    following = "statesize truncate MODEL (how much memory is enough?), statesize cache MODEL (what may a cache lose?)"
    assert captured.err == f"Profile: result, page: result/page.html\nNext: {following}\n"
    assert main(["profile", "result", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps({"schema": 1, **ss.Profile.load("result").to_dict(), "folder": "result"}))
    page = Path("result", "page.html").read_text(encoding="utf-8")
    assert "statesize profile " in page
    assert "transformers 5" in page


def test_a_folder_of_profiles_shows_each(saved, here, capsys):
    for name in ("one", "two"):
        shutil.copytree(here / "result", here / "several" / name)
    assert main(["profile", "several"]) == 0
    assert capsys.readouterr().out == f"2 profiles: several/one, several/two.\n\n{saved}\n{saved}"
    assert main(["profile", "several", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["profiles"]
    assert [one["folder"] for one in found] == ["several/one", "several/two"]


def test_showing_imports_nothing_heavy(saved):
    code = (
        "import sys; from statesize.cli import main; main(['profile', 'result'])\n"
        "assert not {'torch', 'pandas', 'xarray', 'altair', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("options", ["--text x", "--positions 3", "--output other"])
def test_a_profile_is_not_measured_anew(saved, options, capsys):
    assert main(["profile", "result", *options.split()]) == 2
    assert "result must stand alone" in capsys.readouterr().err


def test_a_profile_is_not_a_model(saved, capsys):
    assert main(["truncate", "result"]) == 1
    assert "got 'result', which has no config.json" in capsys.readouterr().err
