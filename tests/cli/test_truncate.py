"""`statesize truncate`: table, JSON, page and bad input."""

import json

from statesize.cli import main
from statesize.lab import zoo


def test_table_page_and_output(tmp_path, capsys):
    page, output = tmp_path / "cut.html", tmp_path / "cut.json"
    arguments = ["truncate", "gla", "--sequences", "2", "--max-tokens", "16"]
    assert main([*arguments, "--html", str(page), "--output", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Kept to its ESS, gla changes its predictions by about ")
    # Less text makes no stronger claim.
    assert "× ESS" not in captured.out.splitlines()[0]
    assert "few texts: " in captured.out
    assert "Reading bundled documents" in captured.err
    assert f"Page: {page}" in captured.err
    assert "What gla carries, by cutting" in page.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [page, output]
    assert main([*arguments, "--json", "--at", "20%"]) == 0
    found, kept = json.loads(capsys.readouterr().out), json.loads(output.read_text(encoding="utf-8"))
    assert found["at"] == 0.2
    assert found["rows"] == kept["rows"]
    assert found["limits"][0]["code"] == "few texts"


def test_json_of_texts_of_ones_own(checkpoint, tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    lines = [{"text": f"the {kind} of the list is sorted, and the result is returned. " * 6} for kind in "abcde"]
    texts.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    few = ["--max-tokens", "8", "--sequences", "5", "--json"]
    assert main(["truncate", str(checkpoint), "--text", str(texts), *few]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["texts"] == 5
    assert [one["cut"] for one in document["measured"]] == [4] * 5
    assert document["worth"]["interval"] is not None


def test_texts_that_are_shorter_than_a_piece_are_taken_as_they_are(checkpoint, tmp_path, capsys):
    text, longer = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_text(zoo.documents()[0][:60], encoding="utf-8")
    longer.write_text(zoo.documents()[1][:90], encoding="utf-8")
    assert main(["truncate", str(checkpoint), "--text", str(text), "--json"]) == 0
    captured = capsys.readouterr()
    (measured,) = json.loads(captured.out)["measured"]
    assert f"Pieces are of {measured['tokens']} tokens, not 512: the texts are too short." in captured.err
    assert measured["cut"] == measured["tokens"] // 2
    # Half of several texts are read, or more: here both.
    assert main(["truncate", str(checkpoint), "--text", str(text), "--text", str(longer), "--json"]) == 0
    both = json.loads(capsys.readouterr().out)["measured"]
    assert [one["tokens"] for one in both] == [measured["tokens"]] * 2


def test_bad_input(tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("A", encoding="utf-8")
    assert main(["truncate", "gla", "--text", str(short)]) == 2
    assert "2 tokens of their own" in capsys.readouterr().err
    assert main(["truncate", "gla", "--html", str(tmp_path)]) == 1
    capsys.readouterr()
