"""The table of a page that puts models side by side."""

import math

import pytest
import torch
from report.visit import Visit

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.report import write_report
from statesize.report.comparison import compare
from statesize.report.page import page
from statesize.report.tables import COMPARED, comparison_table
from statesize.results.fields import FIGURE_HEADINGS, FIGURES, GROUP_HEADINGS, MIDDLE_SHARES, Heading


@pytest.fixture(scope="module")
def profiles(hostile_profile):
    config = ModelConfig(mixer="sa", vocabulary_size=9, width=8, heads=2, layers=1)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    return [hostile_profile, profile(model, [list(range(9))], name="<b>other</b>")]


def test_headings_on_one_line_hold_no_brackets():
    assert Heading("utilisation of\nstate (entropy)", "z.0%").line == "Utilisation of state, entropy"
    for heading in (FIGURE_HEADINGS | GROUP_HEADINGS).values():
        assert not {"(", ")", "\n"} & set(heading.line)


def test_numbers_are_those_of_the_comparison(profiles):
    comparison = compare(profiles)
    table = comparison_table(comparison.models, profiles)
    # No heads that share a cache, no sinks.
    absent = ("readout_total_entropy", "sinkless_entropy")
    assert list(table.headings) == ["model", *(name for name in FIGURES if name not in absent)]
    for index, (model, row) in enumerate(zip(comparison.models, table.rows, strict=True)):
        cells = dict(zip(table.headings, row, strict=True))
        assert cells.pop("model") == profiles[index].model
        for name, cell in cells.items():
            assert cell.value == getattr(model, name) or math.isnan(cell.value)
        assert cells["average_entropy"].text.startswith(f"{model.average_entropy:.1f}")
        # The first has a state, the second a cache.
        assert cells["state_utilisation"].text == ("-" if index else f"{model.state_utilisation:.0%}")
        assert cells["ceiling_utilisation"].text == (f"{model.ceiling_utilisation:.0%}" if index else "-")
    made = page(profiles)
    assert "not of the same tokens" in " ".join(made.notes["How to read this"])
    # The terms of a table are those of its columns.
    first, _, every = made.tables[:3]
    assert list(every.terms) == [FIGURE_HEADINGS[name].line for name in FIGURES if name not in absent]
    assert list(first.headings) == ["model", *(name for name in COMPARED if name not in absent)]
    assert list(first.terms) == [FIGURE_HEADINGS[name].line for name in list(first.headings)[1:]]


def test_shares_of_states_alone_stand_beside_each_other(profiles):
    assert {*MIDDLE_SHARES} & {*page([profiles[0]] * 2).tables[0].headings} == {"middle_state_utilisation"}


def test_one_profile_has_nothing_beside_it(profiles):
    assert [table.title for table in page(profiles).tables].count("Side by side") == 1
    assert "Side by side" not in [table.title for table in page(profiles[:1]).tables]


def test_models_of_other_tokens_are_not_in_the_chart_along_one_text(profiles):
    one, other = profiles
    (chart,) = (chart for chart in page([one, one, other]).charts if chart.title == "Models along one text")
    assert chart.caption.endswith("because the tokens are others: <b>other</b>.")
    assert "Models along one text" not in [chart.title for chart in page(profiles).charts]


def test_in_a_browser(browser, profiles, tmp_path):
    path = write_report(profiles, tmp_path / "page.html")
    visit = Visit(browser, path, 360, "dark")
    width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    rows = visit.page.locator("section[aria-labelledby=table-0-title] tbody tr")
    assert rows.count() == 2
    assert rows.nth(1).locator("th").inner_text() == "<b>other</b>"
    assert visit.page.locator("table b, img").count() == 0
    assert visit.complaints == []
    visit.context.close()
