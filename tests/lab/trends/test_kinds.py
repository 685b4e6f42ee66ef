"""ESS by kind of document: means and differences are those of SciPy, and documents of other lengths are refused."""

import numpy as np
import pytest
import torch
from scipy import stats

import statesize as ss
from statesize.errors import InputError
from statesize.report.kinds import by_kind, largest_difference, welch

GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.randint(2, 200, (7, 20), generator=GENERATOR)
KINDS = ["prose", "code", "code", "prose", "table", "code", "table"]


def test_means_and_differences_over_documents():
    profile = ss.profile("gla", IDS, positions=4, on_progress=lambda progress: None)
    found = by_kind(profile, KINDS)
    assert [one.layer for one in found] == ["average", *profile.mixers]
    values = profile.mixer("layers.2.mixer")["entropy"].values[:, :, 1:].mean((1, 2), dtype=np.float64)
    parts = {kind: values[np.array(KINDS) == kind] for kind in ("code", "prose", "table")}
    layer = found[3]
    assert {kind: one.value for kind, one in layer.means.items()} == pytest.approx(
        {kind: part.mean() for kind, part in parts.items()}
    )
    assert list(layer.differences) == [("code", "prose"), ("code", "table"), ("prose", "table")]
    by_scipy = stats.ttest_ind(parts["prose"], parts["code"], equal_var=False).confidence_interval(1 - 0.05 / 3)
    one = layer.differences["code", "prose"]
    assert (one.low, one.high) == pytest.approx(tuple(by_scipy), rel=1e-5)
    _, largest = largest_difference(layer)
    assert abs(largest.value) == max(abs(one.value) for one in layer.differences.values())
    assert layer.to_dict()["differences"][0]["from"] == "code"


def test_a_kind_of_one_document_has_no_interval():
    one = welch(np.array([1.0]), np.array([2.0, 4.0]))
    assert one.value == 2
    assert np.isnan(one.low)


def test_what_cannot_be_compared_is_refused():
    profile = ss.profile("gla", IDS[:2], positions=2, on_progress=lambda progress: None)
    for kinds in (["code"], ["code", "code"]):
        with pytest.raises(InputError, match="kinds must be two or more"):
            by_kind(profile, kinds)
    uneven = ss.profile("gla", [IDS[0], IDS[1, :12]], positions=2, on_progress=lambda progress: None)
    with pytest.raises(InputError, match="equal numbers of tokens"):
        by_kind(uneven, ["code", "prose"])
