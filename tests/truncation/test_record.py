"""The verdicts follow from the records."""

import pytest

from benchmarks import bounds
from tools.figures.on_record import read_json


@pytest.mark.parametrize("name", ["bounds", "more_bounds", "other_texts", "nested"])
def test_what_is_on_record_follows_from_its_rows(name):
    document = read_json(name)
    found = bounds.conclusion(document["rows"])
    assert {key: document[key] for key in ("claims", "verdicts") if key in document}.items() <= found.items()
    for kept, again in zip(document["bounds"], found["bounds"], strict=True):
        for key in ("worth", "stored", "multiple_others"):
            if key in kept:
                # Another version of numpy may draw other documents for an interval.
                assert kept[key]["mean"] == again[key]["mean"]


def test_models_of_the_claims_on_both_bounds_read_all_texts():
    rows = [row for row in read_json("bounds")["rows"] if row["tokens"] == bounds.TOKENS]
    assert len(rows) == bounds.DOCUMENTS * len({row["file"] for row in rows})
