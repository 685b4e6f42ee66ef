"""`statesize cache`: table, JSON, the file of ratios and bad input."""

import json

import pytest
from oracles.attention_models import attention_model

from statesize.cli import main


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A small model and token ids, as the command takes them."""
    folder = tmp_path_factory.mktemp("llama")
    attention_model("llama").save_pretrained(folder)
    ids = folder / "ids.json"
    ids.write_text(json.dumps([[n * n % 63 + 1 for n in range(12 * 100)]]), encoding="utf-8")
    return ["cache", str(folder), "--text", str(ids), "--max-tokens", "100", "--sequences", "12"]


def test_table_page_and_json(arguments, tmp_path, capsys):
    page, output = tmp_path / "cache.html", tmp_path / "cache.json"
    assert main([*arguments, "--html", str(page), "--output", str(output)]) == 0
    captured = capsys.readouterr()
    # 50, 25 and 12.5 % of 36 tokens would keep fewer than the 20 that always stay.
    assert "equal" not in captured.out
    assert "not evicted: No tokens are evicted: that takes pieces of 106 tokens, or one text of 318." in captured.out
    assert "nats per token" in captured.out
    assert "What the cache of" in page.read_text(encoding="utf-8")
    kept = json.loads(output.read_text(encoding="utf-8"))
    assert main([*arguments, "--keep", "60%", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["calibration"], len(document["measured"]), document["texts"]) == (4, 8, 1)
    assert {one["keep"] for one in document["variants"]} == {0.0, 0.6, 1.0}
    assert len(document["heads"]) == 4
    assert kept["prefix"] == 36


def test_one_short_text_is_read_in_three_pieces(arguments, tmp_path, capsys):
    ids = tmp_path / "short.json"
    for length, size in ((300, 100), (290, 96)):
        ids.write_text(json.dumps([[n * n % 63 + 1 for n in range(length)]]), encoding="utf-8")
        assert main([*arguments[:2], "--text", str(ids), "--json"]) == 0
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        assert [one["tokens"] for one in document["measured"]] == [size] * 2
        assert document["calibration"] == 1
        assert document["limits"][0]["code"] == "few texts"
        assert f"Pieces are of {size} tokens, not 512: the texts are too short." in captured.err
    ids.write_text(json.dumps([[1] * 200]), encoding="utf-8")
    assert main([*arguments[:2], "--text", str(ids)]) == 2
    assert "inputs must have one text of 288 tokens" in capsys.readouterr().err


def test_bad_input(arguments, capsys):
    assert main([*arguments, "--keep", "130%"]) == 2
    assert "keep must be a share between 0 and 100 %, got" in capsys.readouterr().err
    assert main([*arguments, "--sequences", "2"]) == 2
