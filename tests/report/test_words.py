"""What a report says of its models in words, and the bars beside it."""

import pytest

from statesize.report.charts import layers
from statesize.report.names import metric_titles
from statesize.report.page import page
from statesize.report.words import headline, model_line


def test_a_page_says_each_metric_beside_its_bars(ladder_profile):
    made = page([ladder_profile])
    captions = [chart.caption for chart in made.charts[1:]]
    for metric, caption in zip(metric_titles([ladder_profile]), captions, strict=True):
        assert model_line(ladder_profile, metric) in caption
    assert made.finding == headline([ladder_profile]).sentence
    assert captions[1].count(headline([ladder_profile], "relative_count").sentence) == 1


def test_words_are_of_their_metric(ladder_profile):
    entropy, counts = (model_line(ladder_profile, metric) for metric in ("entropy", "relative_count"))
    assert entropy != counts
    assert headline([ladder_profile]).sentence != headline([ladder_profile], "relative_count").sentence


@pytest.mark.parametrize("metric", ["entropy", "relative_count"])
def test_bars_are_the_averages_of_the_summary(ladder_profile, metric):
    chart = layers([ladder_profile], metric).to_dict()
    drawn = chart["datasets"]["layers"]
    rows = ladder_profile.summary_rows()
    shown = [row["average"] for row in drawn]
    assert shown == pytest.approx([row[f"average_{metric}"] for row in rows], rel=1e-3)
    if metric == "entropy":
        shares = [row["utilisation"] for row in drawn]
        assert shares == pytest.approx([row["state_utilisation"] for row in rows], abs=1e-3)
    (bars,) = chart["layer"]
    assert bars["encoding"]["y"]["field"] == "average"
    assert bars["encoding"]["color"]["scale"]["domain"] == [ladder_profile.model]
