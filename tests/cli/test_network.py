"""`statesize network`: table, JSON and bad input."""

import json
import re
from importlib import import_module

import pytest
import torch

from statesize.cli import main
from statesize.cli.shared.texts import Texts
from statesize.networks import NetworkEss


def test_table(checkpoint, text, capsys):
    assert main(["network", str(checkpoint), "--text", str(text), "--max-tokens", "8", "--positions", "2"]) == 0
    captured = capsys.readouterr()
    assert "entropy-ESS" in captured.out
    first = re.search(
        r"carries ([\d,]+) numbers .* or ([\d.]+) per channel.* allows ([\d,]+) .* each of (\d+) tokens", captured.out
    )
    total, each, most, possible = (float(part.replace(",", "")) for part in first.groups())
    assert possible == 2
    assert each == pytest.approx(total * possible / most, rel=0.1)
    assert "Read: norm behind it. All of these derivatives were" in captured.out
    assert re.search(
        r"small: about \d+ s in all, at the speed of just now. Smaller --max-tokens and --positions, and a larger ",
        captured.err,
    )


def test_one_cut_of_few_tokens_by_default(checkpoint, tmp_path, capsys):
    long = tmp_path / "long.txt"
    long.write_text("The quick brown fox returns a list. " * 30, encoding="utf-8")
    assert main(["network", str(checkpoint), "--text", str(long), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["tokens"], [cut["position"] for cut in document["positions"]]) == (64, [32])


@pytest.mark.parametrize(
    ("model", "words", "given", "next_line"),
    [
        (
            "gla",
            400,
            [],
            "(measures again, over the 344 tokens of the numbers on record, and says what is normal): "
            "statesize network gla --text {} --accuracy 0.5 --max-tokens 344",
        ),
        ("gla", 20, [], "(the heads of each layer): statesize profile gla "),
        ("gla", 20, ["--by-layer"], "(the heads of each layer): statesize profile gla "),
        ("gla", 400, ["--end", "layers.0"], "(the heads of each layer): statesize profile gla "),
        ("gla", 400, ["--tokens", "344"], "(whether layers keep what others keep): statesize network gla "),
        ("sa", 400, ["--tokens", "344"], "(the heads of each layer): statesize profile sa "),
    ],
)
def test_the_next_command_answers_what_this_one_did_not(tmp_path, monkeypatch, capsys, model, words, given, next_line):
    dense = NetworkEss(
        *(torch.tensor([at]) for at in (10, 5.0)), torch.tensor([[4.0, 6.0]]), torch.ones(1, 2), torch.zeros(1, 2),
        *(torch.tensor([at]) for at in (1.0, 1280, 10)), 128, True, "dense", "forward mode", "embedding", "norm", 0.0,
    )  # fmt: skip
    monkeypatch.setattr("statesize.networks.network.network_ess", lambda *_, **__: dense)
    monkeypatch.setattr(import_module("statesize.networks.redundancy"), "redundancy", lambda *_: None)
    long = tmp_path / "long.txt"
    long.write_text("word " * words, encoding="utf-8")
    assert main(["network", model, "--text", str(long), "--accuracy", "0.5", *given]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("next " + next_line.format(long))


def test_json(checkpoint, text, capsys):
    arguments = ["network", str(checkpoint), "--text", str(text), "--max-tokens", "10", "--positions", "1"]
    found = {}
    for method in ("dense", "lanczos"):
        assert main([*arguments, "--method", method, "--json", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        found[method] = json.loads(captured.out)
    (exact,), (estimate,) = (found[method]["positions"] for method in ("dense", "lanczos"))
    assert estimate["interval"][0] <= exact["entropy"] <= estimate["interval"][1]
    assert found["dense"]["tokens"] == 10


def test_bad_input(checkpoint, text, capsys):
    given = ["network", str(checkpoint), "--text", str(text)]
    assert main([*given, "--start", "nowhere"]) == 2
    said = "--start must be the name of a module that runs, got 'nowhere'. It has embedding, layers.0, "
    assert re.search(rf"{said}[\w.]+ and \d+ more\.$", capsys.readouterr().err)
    assert main([*given, "--end", "layers.1.mixr"]) == 2
    assert "got 'layers.1.mixr'. Did you mean layers.1.mixer?" in capsys.readouterr().err
    assert main([*given, "--accuracy", "2"]) == 2


def test_layers_are_put_beside_the_network_and_compared(checkpoint, text, tmp_path, capsys):
    arguments = [
        "network",
        str(checkpoint),
        "--text",
        str(text),
        "--max-tokens",
        "10",
        "--positions",
        "1",
        "--by-layer",
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "all layers" in printed
    assert "The redundancy cannot be told at 5: the states can hold " in printed
    assert main([*arguments, "--json", "--quiet"]) == 0
    assert "redundancy" in json.loads(capsys.readouterr().out)


def test_page(checkpoint, text, tmp_path, capsys):
    page = tmp_path / "network.html"
    arguments = ["network", str(checkpoint), "--text", str(text), "--max-tokens", "8", "--positions", "2"]
    assert main([*arguments, "--by-layer", "--html", str(page)]) == 0
    captured = capsys.readouterr()
    assert f"Report: {page}" in captured.err
    written = page.read_text(encoding="utf-8")
    assert "What small carries, all layers together" in written
    layers = len(re.findall(r"^layers\.", captured.out, re.MULTILINE))
    assert layers
    assert '<tr><th scope="row">network</th>' in written
    assert written.count('<tr><th scope="row">layers.') == layers


@pytest.mark.parametrize(("option", "count"), [("--sequences", 2), ("--documents", 3), ("--text", 2)])
def test_more_than_one_text_is_refused_before_the_model_is_loaded(checkpoint, text, monkeypatch, capsys, option, count):
    monkeypatch.setattr("statesize.models.load.load_model_facts", lambda *_, **__: pytest.fail("loading"))
    given = [option, str(text)] * count if option == "--text" else [option, str(count)]
    assert main(["network", str(checkpoint), *given]) == 2
    # A message calls an option of two names by the first.
    first = option.replace("documents", "sequences")
    said = f"{first} must be one text, because a network is measured over one, got {count}."
    assert said in capsys.readouterr().err


def test_a_text_is_read_once(checkpoint, tmp_path, monkeypatch, capsys):
    long, reads = tmp_path / "long.txt", []
    long.write_text("word " * 400, encoding="utf-8")
    read = Texts.read
    monkeypatch.setattr(Texts, "read", lambda *given: reads.append(given) or read(*given))
    monkeypatch.setattr("statesize.networks.page.ON_RECORD", {str(checkpoint): 1.0})
    assert main(["network", str(checkpoint), "--text", str(long), "--max-tokens", "8"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("next (measures again, over the 344 tokens ")
    assert len(reads) == 1


def test_plan(checkpoint, text, capsys):
    arguments = ["network", str(checkpoint), "--text", str(text), "--max-tokens", "8", "--positions", "2", "--plan"]
    assert main(arguments) == 0
    assert "s a product; how many are needed" in capsys.readouterr().out
    assert main([*arguments, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [cut["method"] for cut in document["steps"]] == ["dense", "dense"]
