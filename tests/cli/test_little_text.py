"""Each command says which text it reads where none is given, and that too little of it tells nothing."""

import pytest
from cli.conftest import write_checkpoint

from statesize.cli import main

TRIALS = {
    "profile": "profile one --max-tokens 8",
    "network": "network one --max-tokens 8",
    "series": "series one two --max-tokens 8",
    "truncate": "truncate one --documents 2 --max-tokens 8",
    "length": "length one --lengths 4,8 --future 4 --excerpts 2",
    "compress": "compress one --documents 8 --max-tokens 64 --output small",
}
LITTLE = {
    "truncate": "too little to tell what a cut loses",
    "length": "at least 5 texts are needed to tell",
    "compress": "Too little to tell whether it is safe",
}


@pytest.fixture
def models(here):
    for name in ("one", "two"):
        write_checkpoint(here / name, mixer="gla")


@pytest.mark.parametrize("command", TRIALS)
def test_a_trial_on_bundled_documents_says_so_and_that_it_is_little(models, capsys, command):
    assert main(TRIALS[command].split()) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("Reading bundled documents; --text FILE reads yours.\n")
    assert LITTLE.get(command, "Too little text to tell") in captured.out + captured.err


@pytest.mark.parametrize("command", ["profile", "network"])
def test_enough_text_is_not_called_too_little(models, capsys, command):
    assert main([command, "one", "--max-tokens", "16"]) == 0
    captured = capsys.readouterr()
    assert "Too little text" not in captured.out + captured.err
