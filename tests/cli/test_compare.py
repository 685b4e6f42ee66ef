"""`statesize compare`: table, JSON, page and bad input."""

import json
import os
import shlex
import shutil

import pytest

from statesize.cli import main
from statesize.profiling import Profile


@pytest.fixture(scope="module")
def profiles(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "text.txt").write_text("The quick brown fox returns a list.\n\nIt jumps over the lazy dog.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, extra in (("one", []), ("two", ["--positions", "4"])):
            # Two documents of one sequence, with a delimiter between them.
            words = ["profile", str(checkpoint), "--text", "text.txt", "--corpus", "--output", name, *extra]
            assert main(words) == 0
    (folder / "text.txt").unlink()
    return folder


@pytest.fixture
def saved(profiles, here, capsys):
    capsys.readouterr()
    return shutil.copytree(profiles, here, dirs_exist_ok=True)


def test_table(saved, capsys):
    assert main(["compare", "one", "two"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines[4:6]] == ["small", "small"]
    assert "note: They were measured with different positions (4, default)." in lines
    assert "layer by layer): statesize compare " in captured.err


def test_models_of_one_name_are_told_apart_by_their_folders(saved, capsys):
    for folders in (("one", "two"), ("two", "one")):
        assert main(["compare", *folders]) == 0
        lines = " ".join(capsys.readouterr().out.split())
        assert lines.startswith(f"small ({folders[0]}) carries ")
        assert lines.rindex(f"small ({folders[0]})") < lines.rindex(f"small ({folders[1]})")
    (saved / "other").mkdir()
    (saved / "one").rename(saved / "other" / "two")
    assert main(["compare", "two", "other/two"]) == 0
    assert "small (other/two)" in capsys.readouterr().out


def test_models_over_other_tokens_are_told_the_command_that_makes_them_compare(checkpoint, here, capsys):
    few = ["--layers", "0", "--channels", "2"]
    for model, tokens in (("gla", 16), ("la", 24)):
        assert main(["profile", model, "--max-tokens", str(tokens), "--output", f"{model}-{tokens}", *few]) == 0
    assert main(["profile", str(checkpoint), "--max-tokens", "24", "--output", "small"]) == 0
    capsys.readouterr()
    assert main(["compare", "gla-16", "la-24"]) == 0
    captured = capsys.readouterr()
    assert "not of the same tokens" in captured.out
    arguments = shlex.split(captured.err.splitlines()[-1].partition("): statesize ")[2])
    assert arguments == ["profile", "la", "--max-tokens", "16", *few, "--output", "la-24-as-gla-16"]
    assert main(arguments) == 0
    assert main(["compare", "gla-16", arguments[-1]]) == 0
    captured = capsys.readouterr()
    assert "not of the same tokens" not in captured.out
    assert "next (charts" in captured.err
    # Another tokenizer, or the same weights at another length, do not compare whatever is measured.
    assert main(["profile", "gla", "--max-tokens", "24", "--output", "gla-24", *few]) == 0
    for other in ("small", "gla-24"):
        assert main(["compare", "gla-16", other]) == 0
        assert "next (charts" in capsys.readouterr().err


def test_json_and_page(saved, capsys):
    assert main(["compare", "one", "two", "--json", "--html", "page.html"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema"] == 1
    assert [model["model"] for model in document["models"]] == ["small (one)", "small (two)"]
    total = Profile.load("one").summary(wide=True)["total_entropy"].sum()
    assert document["models"][0]["total_entropy"] == pytest.approx(total)
    assert len(document["notes"]) == 1
    assert "Report: page.html" in captured.err
    page = (saved / "page.html").read_text(encoding="utf-8")
    assert ">Side by side</h2>" in page


def refused(arguments, capsys, code=1):
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_bad_input(saved, capsys):
    assert "each of PROFILES must be the folder of a profile, got nowhere, which is not there" in refused(
        ["compare", "one", "nowhere"], capsys
    )
    assert "must be the folders of two profiles or more, got 1" in refused(["compare", "one"], capsys, code=2)
    assert "is a folder" in refused(["compare", "one", "two", "--html", "two"], capsys)
    refused(["compare"], capsys, code=2)
    assert sorted(os.listdir(saved)) == ["one", "two"]
