"""What commands print on stderr, and that --quiet keeps it back while stdout stays the same."""

import pytest

from statesize.cli import main


@pytest.fixture
def told(capsys):
    """Stdout and stderr of a command, without and with --quiet."""

    def told(*arguments):
        found = []
        for more in ([], ["--quiet"]):
            assert main([*map(str, arguments), *more]) == 0
            found.append(capsys.readouterr())
        return found

    return told


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # So that nothing of a test outlives it.
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.mark.slow
def test_profile_and_compare(told, checkpoint, text):
    loud, quiet = told("profile", checkpoint, "--text", text, "--output", "result", "--html", "page.html")
    for line in ("profiling small: sequence 1 of 1, mixer 1 of 2", "Profile: result", "Report: page.html"):
        assert line in loud.err
    assert quiet == (loud.out, "")
    loud, quiet = told("profile", "result", "--html", "again.html")
    told_next = "next (all layers and columns): statesize profile result --wide"
    assert (loud.err, quiet) == (f"Report: again.html\n{told_next}\n", (loud.out, ""))
    loud, quiet = told("compare", "result", "result", "--html", "both.html")
    assert loud.err.startswith("Report: both.html\nnext (the heads of one model): statesize profile ")
    assert quiet == (loud.out, "")


def test_what_was_left_out_is_told_all_the_same(told, checkpoint, tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"text": "The quick brown fox."}\n{"no": 1}\n', encoding="utf-8")
    _, quiet = told("profile", checkpoint, "--jsonl", "lines.jsonl")
    assert quiet.err.startswith("Left out 1: lines.jsonl, line 2")
    assert quiet.err.count("\n") == 1


def test_studies_say_how_far_they_are(tmp_path, capsys):
    for folder, more in (("loud", []), ("quiet", ["--quiet"])):
        assert main(["study", "regimes", "--output", folder, *more]) == 0
        out, err = capsys.readouterr()
        assert "Caveats" in out
        assert err.count("study regimes: run ") == (0 if more else 1)
        assert bool(err) == (not more)
