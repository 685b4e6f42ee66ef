"""What a report says of its layers in words."""

import pytest

from statesize.profiling import Profile
from statesize.report.diagnosis import diagnosis_section
from statesize.results.charts import layers
from statesize.results.diagnosis import COLLAPSED, SATURATED, diagnose


def test_words_thresholds_and_metric(ladder_profile):
    section = diagnosis_section([ladder_profile])
    assert f"saturated from {SATURATED:.0%} of its ceiling on, and as collapsed up to {COLLAPSED:.0%}" in section
    assert "relative tolerance-ESS with ρ = 0.01" in section
    for item in diagnose(ladder_profile):
        assert f"{item.layer}: {item.regime}" in section
    assert "<b>" not in section


def test_bars_are_of_the_same_numbers_and_thresholds(ladder_profile):
    tables = layers([ladder_profile]).tables
    assert [row["share"] for row in tables["thresholds"]] == [SATURATED, COLLAPSED]
    shown = [row["relative_utilisation"] for row in tables["layers"]]
    assert shown == pytest.approx([item.utilisation for item in diagnose(ladder_profile)], abs=1e-3)


def test_without_relative_tolerances_the_entropy_is_judged(ladder_profile):
    tree = ladder_profile.to_xarray()
    tree.attrs["relative_tolerances"] = []
    for name in ladder_profile.mixers:
        tree[name] = tree[name].to_dataset(inherit=False).isel(relative_threshold=slice(0, 0))
    bare = Profile(tree)
    assert "that of the entropy-ESS." in diagnosis_section([bare])
    assert "relative tolerance-ESS with" in diagnosis_section([ladder_profile])
    assert "and of the entropy-ESS where there is none" in diagnosis_section([ladder_profile, bare])
    assert "relative_utilisation" not in layers([bare]).tables["layers"][0]
