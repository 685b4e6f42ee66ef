"""What a report says of its layers in words, and the bars beside it."""

import pytest

from statesize.report.diagnosis import diagnosis_section
from statesize.results.charts import layers
from statesize.results.diagnosis import diagnose


def test_each_layer_in_words(ladder_profile):
    section = diagnosis_section([ladder_profile])
    for item in diagnose(ladder_profile):
        assert str(item) in section
    assert "saturated" not in section


def test_bars_are_the_shares_of_the_summary(ladder_profile):
    chart = layers([ladder_profile])
    rows = ladder_profile.summary_rows()
    shown = [row["utilisation"] for row in chart.tables["layers"]]
    assert shown == pytest.approx([row["state_utilisation"] for row in rows], abs=1e-3)
    assert chart.groups == (f"{ladder_profile.model}, of state",)
