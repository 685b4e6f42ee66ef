"""`statesize cache`: table, JSON, the file of ratios and bad input."""

import json

import numpy as np
import pytest
from oracles.attention_models import attention_model

from statesize.cli import main


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A small model and token ids, as the command takes them."""
    folder = tmp_path_factory.mktemp("llama")
    attention_model("llama").save_pretrained(folder)
    ids = folder / "ids.jsonl"
    ids.write_text(json.dumps([n * n % 63 + 1 for n in range(12 * 100)]), encoding="utf-8")
    return ["cache", str(folder), "--ids", str(ids), "--max-tokens", "100", "--sequences", "12"]


def test_table_ratios_and_page(arguments, tmp_path, capsys):
    path, page = tmp_path / "ratios.npy", tmp_path / "cache.html"
    assert main([*arguments, "--ratios", str(path), "--rule", "streaming", "--html", str(page)]) == 0
    captured = capsys.readouterr()
    # 50, 25 and 12.5 % of 36 tokens would keep the 20 that always stay.
    written = page.read_text(encoding="utf-8")
    assert "55.56 % equal" in written
    assert "55.56 % by curves" not in written
    # Context is worth nothing to this model, and its text has 6 pieces of twice the length.
    assert captured.err.splitlines()[-1].endswith(f"--html {page} --max-tokens 200")
    assert captured.err.count("--max-tokens") == 1
    assert "The rule &#x27;streaming&#x27; chooses the tokens that go" in written
    assert f"Ratios: {path}" in captured.err
    assert np.load(path).shape == (99, 2, 2)
    assert f"Report: {page}" in captured.err
    # Without a tokenizer losses are in nats.
    assert "Extra nats per token" in written
    assert written.count('<tr><th scope="row">') == 1 + 4 + 4


def test_json(arguments, capsys):
    assert main([*arguments, "--keep", "60%", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["documents"] == {"calibration": 4, "selection": 2, "held_out": 6, "texts": 1}
    assert document["ratios"] == [0.6, 20 / 36]
    assert len(document["heads"]) == 4


def test_truncate_takes_the_curves_of_other_texts(arguments, tmp_path, capsys):
    assert main([*arguments, "--json", "--quiet"]) == 0
    printed, path = capsys.readouterr().out, tmp_path / "cache.json"
    path.write_text(printed, encoding="utf-8")
    cut = ["truncate", *arguments[1:4], "--max-tokens", "50", "--sequences", "1", "--curves", str(path), "--expected"]
    assert main([*cut, "--json", "--quiet"]) == 0
    rules = {row["rule"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"expected tokens", "tokens by curves"} <= rules
    assert main([*cut, "--html", str(tmp_path / "cut.html")]) == 0
    told = capsys.readouterr().out
    assert "its ESS, whole tokens, by expected attention" in told
    assert "whole tokens, by measured curves" in told
    assert "By measured curves each cache gets" in (tmp_path / "cut.html").read_text(encoding="utf-8")


def test_bad_input(arguments, tmp_path, capsys):
    for share in ("130%", "0", "x", "nan"):
        assert main([*arguments, "--keep", share]) == 2
        assert "keep must be a share between 0 and 100 %, got" in capsys.readouterr().err
    assert main([*arguments, "--ratios", str(tmp_path / "ratios.txt")]) == 2
    assert "ratios must be a file .npy" in capsys.readouterr().err
    assert main([*arguments, "--ratios", str(tmp_path / "none" / "ratios.npy")]) == 1
    assert "--ratios must lie in a folder that is there, got " in capsys.readouterr().err
    assert main([*arguments, "--rule", "best"]) == 2


def test_more_pieces_of_too_few_texts_are_not_advised(arguments, tmp_path, capsys):
    few = tmp_path / "few.jsonl"
    texts = [[n * n % 63 + 1 for n in range(first, first + 390)] for first in range(5)]
    few.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    given = [*arguments[:2], "--ids", str(few), "--max-tokens", "100", "--sequences", "6", "--passkeys", "0"]
    assert main(given) == 0
    captured = capsys.readouterr()
    assert "no interval, which takes 5 texts" in captured.out
    *_, said = captured.err.splitlines()
    assert said.startswith("next (only more text tells more: 10 texts or more, one in each row): statesize cache ")
    assert said.endswith(" --max-tokens 100 --passkeys 0 --ids TEXTS.jsonl --sequences 10")
