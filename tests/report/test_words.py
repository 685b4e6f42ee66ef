"""What a report says of its models in words, and the bars beside it."""

import re
from types import SimpleNamespace

import pytest

import statesize as ss
from statesize.report.charts import layers
from statesize.report.names import metric_titles
from statesize.report.page import page
from statesize.report.tables import layer_rows
from statesize.report.words import headline, middle_cut, model_line, what_suffices


def test_a_page_says_each_metric_beside_its_bars(ladder_profile):
    made = page([ladder_profile])
    captions = [chart.caption for chart in made.charts[1:]]
    for metric, caption in zip(metric_titles([ladder_profile]), captions, strict=True):
        assert model_line(ladder_profile, metric) in caption
    said, reach = made.finding.splitlines()
    assert said == headline([ladder_profile])
    assert reach == "This is of 1 text at one cut, and no verdict on a model."
    assert captions[1].count(headline([ladder_profile], "relative_count")) == 1


@pytest.mark.parametrize(
    ("positions", "cut"),
    [
        ([3], "token 3 of texts of up to 12 tokens"),
        (3, "the cut nearest to the middle of texts of up to 12 tokens"),
        (None, "the middle of texts of up to 12 tokens"),
    ],
)
def test_a_cut_is_called_the_middle_only_where_all_were_measured(positions, cut):
    found = ss.profile("gla", [list(range(5, 13)), list(range(5, 17))], positions=positions)
    assert middle_cut(found) == cut
    assert f"past {cut}, of" in headline([found])


def test_words_are_of_their_metric(ladder_profile):
    entropy, counts = (model_line(ladder_profile, metric) for metric in ("entropy", "relative_count"))
    assert entropy != counts
    assert headline([ladder_profile]) != headline([ladder_profile], "relative_count")


@pytest.mark.parametrize("metric", ["entropy", "relative_count"])
def test_bars_are_the_numbers_of_the_words_and_of_the_table(ladder_profile, metric):
    found = ss.profile("gla", [list(range(5, 29))])
    drawn, told = layers([found], metric).to_dict()["datasets"]["layers"], layer_rows(found, metric)
    assert [f"{row['middle']:.1f}" for row in drawn] == [row.ess for row in told]
    assert [row["ceiling"] for row in drawn] == [row.ceiling for row in told]
    ends = re.search(r"From ([\d.]+) in layer (\d+) to ([\d.]+) in layer (\d+)", model_line(found, metric)).groups()
    by_layer = {row["short"]: f"{row['middle']:.1f}" for row in drawn}
    assert (by_layer[ends[1]], by_layer[ends[3]]) == (ends[0], ends[2])
    chart = layers([ladder_profile], metric).to_dict()
    if metric == "entropy":
        shares = [row["utilisation"] for row in chart["datasets"]["layers"]]
        assert shares == pytest.approx([row.used for row in layer_rows(ladder_profile, metric)], abs=1e-3)
    (bars,) = chart["layer"]
    assert bars["encoding"]["y"]["field"] == "middle"
    assert bars["encoding"]["color"]["scale"]["domain"] == [ladder_profile.model]


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ({"kind": "bundled"}, "statesize truncate gla"),
        ({"kind": "folder"}, "statesize truncate MODEL --jsonl TEXTS.jsonl"),
        ({"kind": "folder", "test": "statesize truncate here --text b.txt"}, "statesize truncate here --text b.txt"),
    ],
)
def test_the_command_that_tests_what_suffices_is_told_in_full(source, command):
    _, (told,) = what_suffices([SimpleNamespace(model="gla", attributes={"source": source})])
    own = " (TEXTS.jsonl: at least 5 texts of yours, one in each row)" if "TEXTS" in command else ""
    assert told == f"Whether so many numbers suffice, this tests{own}: {command}"
