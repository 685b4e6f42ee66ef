"""The verdicts follow from the records."""

import pytest

from benchmarks import bounds
from tools.figures.on_record import read_json


@pytest.mark.parametrize("name", ["bounds", "more_bounds"])
def test_verdicts_on_both_bounds_follow_from_the_record(name):
    document = read_json(name)
    found = bounds.conclusion(document["rows"])
    assert document["claims"] == found["claims"]
    assert document["verdicts"] == found["verdicts"]
    for kept, again in zip(document["bounds"], found["bounds"], strict=True):
        assert kept["worth"] == again["worth"]
        # Another version of numpy may draw other documents.
        assert kept["stored"]["mean"] == again["stored"]["mean"]


def test_models_of_the_claims_on_both_bounds_read_all_texts():
    document = read_json("bounds")
    lengths = {(row["file"], row["tokens"]) for row in document["rows"]}
    whole = {file for file, tokens in lengths if tokens == bounds.TOKENS}
    rows = [row for row in document["rows"] if row["tokens"] == bounds.TOKENS]
    assert len(rows) == bounds.DOCUMENTS * len(whole)


def test_sizes_of_other_texts_follow_from_the_record():
    document = read_json("other_texts")
    found = bounds.conclusion(document["rows"])["bounds"]
    assert len(document["bounds"]) == len(found)
    for kept, again in zip(document["bounds"], found, strict=True):
        assert kept["multiple_others"]["mean"] == again["multiple_others"]["mean"]
