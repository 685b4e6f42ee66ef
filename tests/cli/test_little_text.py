"""Each command says which text it reads where none is given, and that too little of it tells nothing."""

import time
from importlib import import_module

import pytest
from cli.conftest import write_checkpoint
from oracles.attention_models import attention_model
from transformers import PreTrainedTokenizerFast

from statesize.cli import main
from statesize.errors import FileError
from statesize.lab import zoo
from statesize.models import load as load_model

TRIALS = {
    "profile": "profile one --max-tokens 8",
    "series": "series one two --max-tokens 8",
    "truncate": "truncate one --documents 2 --max-tokens 8",
    "length": "length one --lengths 4,8 --future 4 --excerpts 2",
}
LITTLE = {
    "truncate": "few texts: ",
    "length": "An exponent takes 3 lengths and 5 texts or more, got 2 lengths and 2 texts.",
}


@pytest.fixture
def models(here):
    for name in ("one", "two"):
        write_checkpoint(here / name, mixer="gla")


@pytest.mark.few(2)
@pytest.mark.parametrize("command", TRIALS)
def test_a_trial_on_bundled_documents_says_so_and_that_it_is_little(models, capsys, command):
    assert main(TRIALS[command].split()) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("Reading bundled documents; --text FILE reads yours.\n")
    assert LITTLE.get(command, "Too little text to tell") in captured.out + captured.err


FEW = {
    "truncate {} --max-tokens 24": "No interval: it takes 5 texts of 64 tokens or more, got {}; --jsonl FILE reads",
    "cache {} --max-tokens 96 --sequences 6": "No interval: it takes 5 priced texts of 576 tokens or more, or 8 of 96 "
    "or more, of which two thirds are priced, got {}; --jsonl FILE reads",
    "length {} --lengths 16,32,64": "No interval: it takes 5 texts of 128 tokens or more, got {}; --jsonl FILE reads",
}


@pytest.mark.few(3)
@pytest.mark.parametrize(("texts", "held_out"), [(3, 2), (7, 4)])
@pytest.mark.parametrize("command", FEW)
def test_how_many_texts_are_needed_is_said_before_it_is_measured(
    models, here, monkeypatch, capsys, command, texts, held_out
):
    def stop(*_, **__):
        raise FileError("Measuring.")

    for module in ("truncation.truncate", "truncation.cache", "lab.trends.length"):
        measuring = import_module(f"statesize.{module}")
        monkeypatch.setattr(measuring, "cache" if "cache" in module else module.rpartition(".")[2], stop)
    name = "llama" if command.startswith("cache") else "one"
    attention_model("llama", vocab_size=1024).save_pretrained(here / "llama")
    PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"}).save_pretrained(here / "llama")
    given = []
    for number in range(texts):
        (here / f"{number}.txt").write_text(f"Text {number} of the list is sorted. " * 20, encoding="utf-8")
        given += ["--text", f"{number}.txt"]
    wanted = {"truncate": texts if texts < 5 else None, "cache": held_out}.get(
        command.split()[0], texts if texts < 5 else None
    )
    assert main([*command.format(name).split(), *given]) == 1
    assert (FEW[command].format(wanted) in capsys.readouterr().err) == (wanted is not None)


@pytest.mark.parametrize("command", ["profile one --max-tokens 16", *(TRIALS[one] for one in ("truncate", "length"))])
def test_a_wait_says_what_is_being_done(models, monkeypatch, capsys, command):
    monkeypatch.setattr("statesize.io.progress._SILENT", 0.0)
    load = load_model.load_model

    def slow(*given, **options):
        time.sleep(0.2)
        return load(*given, **options)

    monkeypatch.setattr("statesize.models.load.load_model", slow)
    assert main(command.split()) == 0
    assert "loading one …\n" in capsys.readouterr().err
    assert main([*command.split(), "--quiet"]) == 0
    assert "…" not in capsys.readouterr().err


def test_too_little_text_is_said_once(models, capsys):
    for command in (TRIALS["series"], TRIALS["profile"]):
        assert main(command.split()) == 0
        captured = capsys.readouterr()
        assert (captured.out + captured.err).count("Too little text to tell") == 1


def test_enough_text_is_not_called_too_little(models, capsys):
    assert main(["profile", "one", "--max-tokens", "16"]) == 0
    captured = capsys.readouterr()
    assert "Too little text" not in captured.out + captured.err
