"""One list of columns is the source of tables, pages, documents, attributes and the page of documentation."""

from pathlib import Path

import pytest

from statesize.report.comparison import compare
from statesize.report.page import page
from statesize.results import fields
from statesize.results.fields import ARRAYS, COLUMNS, markdown

FILES = Path(__file__).parents[2] / "docs" / "appendix" / "files.md"


def shown(profile):
    """Names of the columns that each view has."""
    made, compared = page([profile]), compare([profile, profile])
    return {
        "terminal": list(profile.table().headings),
        "page": [name for table in made.tables for name in table.headings],
        "document": list(profile.to_dict()["mixers"][0]),
        "frame": list(profile.summary().columns),
        "comparison": list(compared.table(wide=True).headings),
        "compared": list(compared.to_dict()["models"][0]),
    }


@pytest.mark.parametrize(("name", "first"), [("ess", True), ("norm", False)])
def test_a_field_that_is_taken_out_is_gone_everywhere(small_profile, monkeypatch, name, first):
    assert [view for view, names in shown(small_profile).items() if name not in names] == (
        [] if first else ["terminal"]
    )
    monkeypatch.setattr(fields, "COLUMNS", tuple(column for column in COLUMNS if column.name != name))
    assert not any(name in names for names in shown(small_profile).values())


def test_arrays_say_what_they_are(small_profile):
    node = small_profile.to_xarray()["layers.0.mixer"]
    assert {name: node[name].attrs["long_name"] for name in ARRAYS} == {
        name: field.meaning for name, field in ARRAYS.items()
    }
    assert node["state_bytes"].attrs["units"] == "bytes"


def test_the_page_of_documentation_is_the_list():
    assert markdown() in FILES.read_text(encoding="utf-8")


def test_names_differ_and_have_a_meaning():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(column.meaning.endswith(".") for column in COLUMNS)
