"""`statesize compare`: table, JSON, page and bad input."""

import json
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
            words = ["profile", str(checkpoint), "--text", "text.txt", "--output", name, *extra]
            assert main(words) == 0
    (folder / "text.txt").unlink()
    return folder


@pytest.fixture
def saved(profiles, here, capsys):
    capsys.readouterr()
    return shutil.copytree(profiles, here, dirs_exist_ok=True)


@pytest.mark.parametrize("folders", [["one", "two"], ["."]])
def test_table(folders, saved, capsys):
    assert main(["compare", *folders]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Their cuts differ, so ESS does not compare: small (one) 3.2 past token 12 of 25")
    assert [line.split("  ")[0] for line in lines if line.startswith("small")] == ["small (one)", "small (two)"]
    assert "They were measured with different positions (4, default)." in lines


def test_json_and_page(saved, capsys):
    assert main(["compare", "one", "two", "--json", "--html", "page.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], [row["model"] for row in document["models"]]) == (1, ["small (one)", "small (two)"])
    total = Profile.load("one").summary()["total_entropy"].sum()
    assert document["models"][0]["total_entropy"] == pytest.approx(total)
    assert ">Side by side</h2>" in (saved / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folders", "code", "lines"), [(["one"], 2, 1), (["one", "nowhere"], 1, 1), (["no", "nor", "nowhere"], 1, 3)]
)
def test_each_wrong_folder_has_a_line(saved, capsys, folders, code, lines):
    assert main(["compare", *folders]) == code
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert (captured.out, len(told)) == ("", lines)
    assert all(line.startswith("statesize: error: ") for line in told)
