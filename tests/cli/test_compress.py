"""`statesize compress`: figures, JSON and bad input."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerFast

from statesize.cli import main
from statesize.lab import zoo
from statesize.measurement.statistics import Interval
from statesize.models.load import load_model
from statesize.reduction.compress import Compression
from statesize.reduction.windows import Recall, some_documents

LINES = [f"document {number} says {number * number} and no more of {number}" for number in range(80)]


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES), encoding="utf-8")
    return path


def test_documents_of_one_file_are_one_text(checkpoint, tmp_path, capsys):
    path, output = tmp_path / "one.txt", tmp_path / "half"
    path.write_text("\n\n".join(LINES * 10), encoding="utf-8")
    assert main(["compress", str(checkpoint), "--text", str(path), "--output", str(output)]) == 0
    captured = capsys.readouterr()
    printed = " ".join(captured.out.split())
    assert "over 13 held-out pieces of one text. Text half a window back and farther is worth" in printed
    assert "95 %" not in printed
    assert "nan" not in printed
    assert "Too little to tell whether it is safe: it takes 50 texts, of which 40 % are held out." in printed
    assert "method some numbers of a state are kept, and the others estimated from them, " in printed
    assert "Whether it is safe takes 50 texts, got 1: --text FILE.jsonl" in captured.err


def test_figures(checkpoint, documents, tmp_path, capsys):
    arguments = ["compress", str(checkpoint), "--text", str(documents), "--output", str(tmp_path / "half")]
    assert main([*arguments, "--state", "50%"]) == 0
    captured = capsys.readouterr()
    assert "cutting the states of small: which states matter" in captured.err
    printed = " ".join(captured.out.split())
    assert "over 32 held-out texts. Text half a window back and farther is worth " in printed
    assert "bits per byte on 32 held-out texts: difference " in printed
    assert "states 256 B to 128 B per text" in printed
    assert "the uncut model recalls too few of" in printed
    assert "safe: the uncut model recalls too little, so it has nothing to lose." in printed
    assert load_model(str(tmp_path / "half")).model.config.state_sizes
    few = ["--sequences", "1", "--max-tokens", "16", "--quiet"]
    assert main(["profile", str(tmp_path / "half"), "--text", str(documents), *few]) == 0


def test_a_trial_reads_some_documents_and_the_first_tokens_of_each(checkpoint, documents, tmp_path, capsys):
    arguments = ["compress", str(checkpoint), "--text", str(documents), "--output", str(tmp_path / "half")]
    assert main([*arguments, "--documents", "20", "--max-tokens", "9"]) == 0
    captured = capsys.readouterr()
    assert "over 8 held-out texts" in captured.out
    assert "Whether it is safe takes 50 texts, got 20: more of these by --sequences, --text" in captured.err
    tokenizer = zoo.tokenizer()
    some = some_documents(LINES, tokenizer, 20, 5)
    assert len(some) == 20
    for part, line in zip(some, LINES, strict=False):
        assert line.startswith(part)
        assert len(tokenizer.encode(part).ids) == 5
    # Pieces of one text stay of one text, which blank lines do not part.
    text = "\n\n".join(LINES)
    (whole,) = some_documents([text], tokenizer, 3, None)
    assert text.startswith(whole)
    assert len(whole) < len(text)
    assert some_documents(LINES, tokenizer, None, None) == LINES


def test_words_of_a_result():
    nothing, recall = (
        Interval(-1e-5, -1e-5, 1e-5),
        Recall(Interval(0.3, 0.2, 0.4), Interval(0.3), Interval(0, 0, 0), 41),
    )
    found = Compression(
        None, None, Interval(2.0), Interval(2.0), nothing, Interval(0.1, 0, 0.2), {"pairs": recall}, 20, 20, (2, 1),
        None, None, "", (),
    )  # fmt: skip
    rows = dict(found.facts)
    assert rows["recall"] == "pairs: 30.0% to 30.0% of 41: difference +0.0% [+0.0%, +0.0%]"
    assert rows["loss"].endswith("difference -0.00001 [-0.00001, +0.00001]")
    assert found.verdict.endswith(
        "half a window back may be worth nothing here, so that far memory has nothing to lose"
    )
    assert found.cost == "has a cost that cannot be told (+0.0000 bits per byte)"
    assert replace(found, worth=Interval(0.1, 0.01, 0.2)).cost == "shows no cost (+0.0000 bits per byte)"
    for worth in (Interval(0.1), Interval(0.1, 0.01, 0.2)):
        assert replace(found, difference=Interval(0.1), worth=worth).cost.startswith("has a cost that cannot be told")
    assert replace(found, difference=Interval(-0.0164, -0.02, -0.01)).cost == "gains 0.0164 bits per byte"
    assert replace(found, difference=Interval(0.0164, 0.01, 0.02)).cost == "costs 0.0164 bits per byte"
    few = replace(found, documents=19, texts=19)
    assert few.verdict.endswith("whether it is safe: it takes 50 texts, of which 40 % are held out")
    nothing_recalled = replace(recall, before=Interval(0.0), after=Interval(0.0), lost=Interval(0.0))
    told = dict(replace(found, recall={"pairs": nothing_recalled}).facts)["recall"]
    assert told == "pairs: the uncut model recalls too few of 41 for a verdict"


def test_frontier(checkpoint, documents, tmp_path, capsys):
    page, folder = tmp_path / "frontier.html", tmp_path / "half"
    arguments = ["compress", str(checkpoint), "--text", str(documents), "--output", str(folder)]
    assert main([*arguments, "--frontier", str(page)]) == 0
    assert f"Report: {page}" in capsys.readouterr().err
    written = page.read_text(encoding="utf-8")
    assert "Smaller states of small" in written
    # Three sizes by three ways in two kinds of numbers, and all states in int8.
    assert written.count("<tr><th") == 2 + 19 + 4
    assert main([*arguments[:-1], str(tmp_path / "new"), "--frontier", str(tmp_path)]) == 1
    assert not (tmp_path / "new").exists()


def test_mamba_2_of_transformers(documents, tmp_path, capfd):
    shape = {"vocab_size": 4096, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Mamba2ForCausalLM(Mamba2Config(head_dim=8, n_groups=2, chunk_size=8, **shape))
    model.save_pretrained(tmp_path / "whole")
    PreTrainedTokenizerFast(tokenizer_object=zoo.tokenizer(), **{"eos_token": "<eos>"}).save_pretrained(
        tmp_path / "whole"
    )
    capfd.readouterr()
    page, half = tmp_path / "frontier.html", tmp_path / "half"
    arguments = ["compress", str(tmp_path / "whole"), "--text", str(documents), "--output", str(half), "--quiet"]
    assert main([*arguments, "--state", "4", "--frontier", str(page), "--json"]) == 0
    printed, errors = capfd.readouterr()
    assert errors == ""
    document = json.loads(printed)
    assert document["state_bytes_before"] == 2 * document["state_bytes_after"]
    assert load_model(str(half)).model.config.state_size == 4
    assert page.read_text(encoding="utf-8").count("<tr><th") == 2 + 6 + 4
    assert main([*arguments[:-2], str(tmp_path / "other"), "--int8"]) == 2
    assert "int8 must be left out for a model of transformers" in capfd.readouterr().err


def test_json(checkpoint, documents, tmp_path, capsys):
    small = tmp_path / "small"
    arguments = ["compress", str(checkpoint), "--text", str(documents), "--output", str(small), "--int8", "--json"]
    assert main([*arguments, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document = json.loads(captured.out)
    assert document["output"] == str(small)
    assert document["safe"] is None


@pytest.mark.parametrize(
    ("change", "message", "code"),
    [
        ({"--state": "200%"}, "state must be a share such as 50% or a size of at least 1, got '200%'", 2),
        ({"--text": "missing.txt"}, "missing.txt: cannot be read as a text file: No such file", 1),
        ({"--output": "{used}"}, "which is in use. Give another", 1),
        ({"--output": "{file}"}, "which is a file. Give a new folder", 1),
        (
            {"--text": "{short}"},
            "text must have about 160 tokens, 64 of them in the 40 % of texts by",
            2,
        ),
        ({"MODEL": "sa"}, "model must have states of a fixed size, got the bundled sa, whose cache grows", 1),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    checkpoint, documents, text, tmp_path, capsys, change, message, code
):
    places = {"{used}": str(checkpoint), "{file}": str(documents), "{short}": str(text)}
    given = {"MODEL": str(checkpoint), "--text": str(documents), "--output": str(tmp_path / "new")} | change
    options = [part for name, value in given.items() if name != "MODEL" for part in (name, places.get(value, value))]
    before = sorted(tmp_path.iterdir())
    assert main(["compress", given["MODEL"], *options]) == code
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before
