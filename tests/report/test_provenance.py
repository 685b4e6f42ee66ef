"""How the numbers of a report were made."""

import numpy as np
import pytest

from statesize.codes import Code, Note
from statesize.profiling import Profile
from statesize.report.page import page
from statesize.report.tables import engine_table, provenance


@pytest.fixture(scope="module")
def altered(hostile_profile):
    tree = hostile_profile.to_xarray()
    tree.attrs |= {
        "skipped": {"<b>mixer": Note(Code.NOT_MEASURED, "no operator of <conv>").to_json()},
        "source": {"kind": "hub", "revision": "main", "command": "statesize profile gla --text 'my notes.txt'"},
        "threads": 3,
        "kernels": {"attention": "sdpa"},
    }
    node = tree["layers.1.mixer"].to_dataset(inherit=False)
    upper = node["relative_upper"].values.copy()
    upper[0, 0, 3, 0] += 1
    node["relative_upper"] = node["relative_upper"].dims, upper
    node["error_bound"] = node["error_bound"].dims, np.full_like(node["error_bound"].values, 3e-7)
    node.attrs |= {"engine": "chunked", "notes": [Note(Code.UNCHECKED, "it took <none>").to_json()]}
    node["faithfulness"] = node["faithfulness"].dims, np.full_like(node["faithfulness"].values, np.nan)
    tree["layers.1.mixer"] = node
    return Profile(tree)


def test_every_fact_of_the_profile(altered):
    facts = page([altered]).facts
    assert facts["Weights, SHA-256"] == altered.attributes["weights_sha256"]
    assert facts["Tokens, SHA-256"] == altered.attributes["tokens_sha256"]
    for name, version in altered.attributes["versions"].items():
        assert f"{name} {version}" in facts["Versions"]
    assert facts["Largest error of a singular value"] == "3.0e-07"
    assert facts["Threads"] == "3"
    assert facts["Command"] == "statesize profile gla --text 'my notes.txt'"
    assert facts["Kernels"] == "attention sdpa"
    assert "positions default, past " in facts["Settings"]
    assert facts["Model"] == "Hugging Face hub, revision main"
    layer = engine_table([altered]).rows[1]
    assert layer[1:5] == ["chunked", "2 of 2 heads", "3.0e-07", "Its T is not checked: it took <none>."]


def test_the_error_of_an_entropy_is_a_share_of_it_as_the_accuracy_asked_for(altered):
    tree = altered.to_xarray()
    node = tree["layers.1.mixer"].to_dataset(inherit=False)
    bound = np.zeros_like(node["entropy_bound"].values)
    bound[0, 1, 5] = 0.04
    node["entropy_bound"] = node["entropy_bound"].dims, bound
    node["entropy"] = node["entropy"].dims, np.where(bound > 0, 80.0, 0.0)
    tree["layers.1.mixer"] = node
    tree["layers.0.mixer"] = node
    assert provenance(Profile(tree))["Largest error of an entropy-ESS, as a share of it"] == "5.0e-04"


def test_what_is_not_known_has_no_line(hostile_profile):
    facts = page([hostile_profile]).facts
    assert not {"Command", "Model", "Kernels"} & set(facts)
    assert "not known" not in " ".join(provenance(hostile_profile).values())


def test_counts_that_stay_open_are_counted(altered, hostile_profile):
    for profile, count in ((hostile_profile, 0), (altered, 1)):
        assert provenance(profile)["Counts that the error bounds leave open"].startswith(f"{count} of ")


def test_what_was_skipped_and_why_stands_above_the_tables(altered, hostile_profile):
    assert page([altered]).notes["Not measured"] == ["<b>mixer: no operator of <conv>"]
    assert not page([hostile_profile]).notes["Not measured"]
    text = page([altered]).render()
    assert text.index("<li>&lt;b&gt;mixer: no operator of &lt;conv&gt;</li>") < text.index("All layers</h2>")


def test_what_differs_between_models_is_a_table(altered, hostile_profile):
    made = page([altered, hostile_profile])
    table = made.tables[-1]
    assert {"Threads", "Command", "Kernels"} <= set(table.headings)
    assert made.facts["Weights, SHA-256"] == altered.attributes["weights_sha256"]
    skipped = [note for note in made.notes["Not measured"] if note.startswith(altered.model)]
    assert skipped == made.notes["Not measured"]
