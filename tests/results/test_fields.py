"""One list of fields is the source of arrays, tables, pages, documents, attributes and the page of documentation."""

import pytest

import statesize as ss
from statesize.report.comparison import compare
from statesize.report.page import page
from statesize.results import fields
from statesize.results.fields import FIELDS, arrays
from tools.figures.fields import fields as listed


def views(profile):
    """Names of the fields that each view has."""
    made, compared = page([profile]), compare([profile, profile])
    return {
        "terminal": [*profile.table().headings],
        "page": [name for table in made.tables for name in table.headings],
        "document": [*profile.to_dict()["mixers"][0]],
        "frame": [*profile.summary().columns],
        "comparison": [*compared.table(wide=True).headings],
        "compared": [*compared.to_dict()["models"][0]],
        "columns in docs": [line.split("`")[1] for line in listed()["columns"].splitlines()[2:]],
        "datasets": [*ss.profile("gla", [[5, 6, 7, 8]], positions=1).mixer(0).data_vars],
        "arrays in docs": [line.split("`")[1] for line in listed()["arrays"].splitlines()[2:]],
    }


OF_MODELS, OF_ARRAYS = {"comparison", "compared"}, {"datasets", "arrays in docs"}


@pytest.mark.parametrize(
    ("name", "without"),
    [("ess", OF_ARRAYS), ("norm", {"terminal"}), ("faithfulness", OF_MODELS | {"terminal"})],
)
def test_a_field_that_is_taken_out_is_gone_everywhere(small_profile, monkeypatch, name, without):
    assert {view for view, names in views(small_profile).items() if name not in names} == without
    monkeypatch.setattr(fields, "FIELDS", tuple(field for field in FIELDS if field.name != name))
    assert not any(name in names for names in views(small_profile).values())


def test_arrays_say_what_they_are(small_profile):
    node = small_profile.to_xarray()["layers.0.mixer"]
    assert {name: node[name].attrs["long_name"] for name in arrays()} == {
        name: field.meaning for name, field in arrays().items()
    }
    assert node["state_bytes"].attrs["units"] == "bytes"


def test_names_differ_and_have_a_meaning():
    assert len({field.name for field in FIELDS}) == len(FIELDS)
    assert all(field.meaning.endswith(".") for field in FIELDS)
