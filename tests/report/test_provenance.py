"""How the numbers of a report were made."""

import numpy as np
import pytest

from statesize.profiling import Profile
from statesize.report.tables import provenance


@pytest.fixture(scope="module")
def altered(hostile_profile):
    tree = hostile_profile.to_xarray()
    tree.attrs |= {
        "skipped": {"<b>mixer": "no operator of <conv>"},
        "source": {"kind": "hub", "revision": "main", "command": "statesize profile gla --text 'my notes.txt'"},
        "threads": 3,
        "kernels": {"attention": "sdpa"},
    }
    node = tree["layers.1.mixer"].to_dataset(inherit=False)
    upper = node["relative_upper"].values.copy()
    upper[0, 0, 3, 0] += 1
    node["relative_upper"] = node["relative_upper"].dims, upper
    node["error_bound"] = node["error_bound"].dims, np.full_like(node["error_bound"].values, 3e-7)
    node.attrs |= {"engine": "chunked", "note": "Its T is not checked: it took <none>."}
    node["faithfulness"] = node["faithfulness"].dims, np.full_like(node["faithfulness"].values, np.nan)
    tree["layers.1.mixer"] = node
    return Profile(tree)


def test_every_fact_of_the_profile(altered):
    page = provenance(altered)
    for name in ("weights_sha256", "tokens_sha256"):
        assert altered.attributes[name] in page
    for name, version in altered.attributes["versions"].items():
        assert f"{name} {version}" in page
    for text in (
        "<dd>3.0e-07</dd>",
        "<dd>3</dd>",
        "<dd>statesize profile gla --text &#x27;my notes.txt&#x27;</dd>",
        "<td>chunked</td><td>2 of 2 heads</td><td>3.0e-07</td>",
        "<td>Its T is not checked: it took &lt;none&gt;.</td>",
        "<dt>Kernels</dt><dd>attention sdpa</dd>",
        "positions all, stride all",
        "<dt>Model</dt><dd>Hugging Face hub, revision main</dd>",
    ):
        assert text in page


def test_what_is_not_known_has_no_line(hostile_profile):
    page = provenance(hostile_profile)
    assert "not known" not in page
    assert "<dt>Command</dt>" not in page
    assert "<dt>Model</dt>" not in page
    assert "<dt>Kernels</dt>" not in page


def test_counts_that_stay_open_are_counted(altered, hostile_profile):
    assert "<dd>0 of " in provenance(hostile_profile)
    assert "<dd>1 of " in provenance(altered)


def test_what_was_skipped_and_why_is_outside_of_what_is_folded(altered, hostile_profile):
    page = provenance(altered)
    shown = page[: page.index("<details>")]
    assert "<li>&lt;b&gt;mixer: no operator of &lt;conv&gt;</li>" in shown
    assert "Not measured" not in provenance(hostile_profile)
