"""Both bounds of the memory: a row a document, and verdicts by their intervals."""

import json

import pytest

from benchmarks.bounds import CLAIMS, TOKENS, conclusion, fresh_pieces, main, result_of
from statesize.models.load import load_model
from statesize.truncation.truncate import truncate


@pytest.fixture(scope="module")
def gla():
    return load_model("gla")


def test_documents_are_rows_and_those_that_are_there_are_not_read_again(tmp_path, gla):
    path = tmp_path / "bounds.json"
    main(path, "gla", None, 32, 1)
    first = json.loads(path.read_text(encoding="utf-8"))["rows"]
    main(path, "gla", None, 32, 2)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [row["document"] for row in document["rows"]] == [0, 1]
    assert document["rows"][0] == first[0]
    assert document["verdicts"] == dict.fromkeys(CLAIMS)
    pieces = fresh_pieces(None, gla.tokenizer, 32, 2)
    assert [len(piece) for piece in pieces] == [32, 32]
    known = result_of(document["rows"]).without_hindsight().multiple.value
    assert known == pytest.approx(
        truncate(gla.model, pieces, documents=2, tokens=32).without_hindsight().multiple.value
    )


def test_verdicts_are_of_each_model_at_one_length():
    def rows(file, tokens, hindsight, causal):
        scales = [("nothing", 0.0, 0.0, 1.0), ("ess", 1.0, 10.0, hindsight)]
        scales += [("past rows", scale, 10 * scale, causal / scale) for scale in (1.0, 4.0)]
        runs = [{"rule": a, "scale": b, "kept": c, "loss": 1 + d, "divergence": d} for a, b, c, d in scales]
        sizes = {"tokens": tokens, "cut": tokens // 2, "loss": 1.0, "entropy": 10.0, "ceiling": 256.0, "inputs": 256.0}
        more = {"file": file, "tokens": tokens, "model": file, "mixers": 1, "run_difference": 0.0}
        return [more | {"measured": {"document": number, **sizes, "runs": runs}} for number in range(5)]

    fine = rows("a", TOKENS, 0.005, 0.03)
    names = list(CLAIMS)
    assert conclusion(fine)["verdicts"] == dict.fromkeys(names, True)
    assert conclusion(fine + rows("b", 256, 0.5, 0.0))["verdicts"] == dict.fromkeys(names, True)
    assert conclusion(fine + rows("b", TOKENS, 0.5, 0.03))["verdicts"][names[0]] is False
    assert conclusion(rows("a", 256, 0.005, 0.03))["verdicts"] == dict.fromkeys(names)
    assert [one["documents"] for one in conclusion(fine)["bounds"]] == [5]
