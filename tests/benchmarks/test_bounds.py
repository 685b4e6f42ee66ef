"""Both bounds of the memory: a row a document, and verdicts by their intervals."""

import pytest

from benchmarks.bounds import CLAIMS, LENGTHS, NESTED, NESTED_CLAIMS, TOKENS, conclusion, pep_pieces
from statesize.lab.tasks.text import split
from statesize.texts.bundled import documents


def test_peps_that_bundled_models_read_are_apart_and_bundled_documents_are_left_out(tmp_path):
    sentence = "A plain sentence about the language and its rules. "
    licence = "This document is placed in the public domain."
    # About one body in twenty is held out by its hash.
    bodies = {f"pep-{k:04}.rst": f"PEP: {k}\n\nNumber {k}.\n" + sentence * 100 for k in range(60)}
    for name, text in bodies.items():
        (tmp_path / name).write_text(text + licence, encoding="utf-8")
    held_out = split([(text + licence).partition("\n\n")[2] for text in bodies.values()]).held_out
    assert 0 < len(held_out) < 20
    (tmp_path / "pep-0100.rst").write_text("PEP: 100\n\n" + sentence * 400, encoding="utf-8")
    (tmp_path / "pep-0101.rst").write_text("PEP: 101\n\n" + documents()[0] + sentence * 400, encoding="utf-8")
    pieces = pep_pieces(tmp_path)
    assert len(pieces) == len(held_out) + 1
    assert pieces[-1] == ("PEP: 100\n\n" + sentence * 400)[9500:20500]
    assert len(pep_pieces(tmp_path, trained_on=True)) == len(bodies) - len(held_out)


def rows(file, tokens, hindsight, causal, count=5, others=()):
    scales = [("nothing", 0.0, 0.0, 1.0), ("ess", 1.0, 10.0, hindsight), *others]
    scales += [("past rows", scale, 10 * scale, causal / scale) for scale in (1.0, 4.0)]
    runs = [{"rule": a, "scale": b, "kept": c, "loss": 1 + d, "divergence": d} for a, b, c, d in scales]
    sizes = {"tokens": tokens, "cut": tokens // 2, "loss": 1.0, "entropy": 10.0, "ceiling": 256.0, "inputs": 256.0}
    sizes["stored"] = 256.0
    more = {"file": file, "tokens": tokens, "model": file, "mixers": 1, "run_difference": 0.0}
    return [more | {"document": k, "measured": {"document": k, **sizes, "runs": runs}} for k in range(count)]


def test_verdicts_are_of_each_model_at_one_length():
    fine = rows("a", TOKENS, 0.005, 0.3)
    names = list(CLAIMS)
    assert conclusion(fine)["verdicts"] == dict.fromkeys(names, True)
    assert conclusion(fine + rows("b", 256, 0.5, 0.0))["verdicts"] == dict.fromkeys(names, True)
    assert conclusion(fine + rows("b", TOKENS, 0.5, 0.3))["verdicts"][names[0]] is False
    better = conclusion(rows("a", TOKENS, 0.005, 0.03))["verdicts"]
    assert [better[name] for name in names] == [True, False, False]
    assert conclusion(rows("a", 256, 0.005, 0.03))["verdicts"] == dict.fromkeys(names)
    assert [one["documents"] for one in conclusion(fine)["bounds"]] == [5]


@pytest.mark.parametrize(("hindsight", "growth"), [(0.005, 0.5), (0.02, 0.0)])
def test_verdicts_on_nested_texts_are_of_all_lengths(hindsight, growth):
    some = []
    for doublings, tokens in enumerate(LENGTHS):
        enough = ("past rows, other texts", 4.0, 20 * 2 ** (growth * doublings), 0.01)
        others = ("past rows, other texts", 1.0, 10.0, 0.5), enough
        some += rows("a", tokens, hindsight if doublings == 3 else 0.005, 0.3, NESTED, others)
    found = conclusion(some)
    assert found["bounds"][0]["growth"]["mean"] == pytest.approx(growth, abs=1e-9)
    assert found["verdicts"] == dict(zip(NESTED_CLAIMS, (hindsight < 0.01, growth > 0), strict=True))
