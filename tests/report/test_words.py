"""What a report says of its models in words, and the bars beside it."""

import pytest

from statesize.report.charts import layers
from statesize.report.words import headline, metric_titles, model_line, words


def test_each_metric_has_its_words_and_one_is_shown(ladder_profile):
    metrics = list(metric_titles([ladder_profile]))
    said = words([ladder_profile], metrics)
    for metric in metrics:
        hidden = "" if metric == "entropy" else " hidden"
        assert f'<span data-metric="{metric}"{hidden}>' in said["headline"]
    assert "=cmd|&quot;x&quot;,&lt;b&gt; carries" in said["lines"]
    assert "<b>" not in "".join(said.values())


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
