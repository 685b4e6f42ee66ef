"""The section of a page that puts models side by side."""

import re

import pytest
import torch
from report.visit import Visit

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import profile
from statesize.report import write_report
from statesize.report.comparison import compare
from statesize.report.page import render
from statesize.report.tables import comparison_section
from statesize.results.fields import FIGURE_HEADINGS, FIGURES, GROUP_HEADINGS, Heading


@pytest.fixture(scope="module")
def profiles(hostile_profile):
    config = ModelConfig(mixer="sa", vocabulary_size=9, width=8, heads=2, layers=1)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    return [hostile_profile, profile(model, [list(range(9))], name="<b>other</b>")]


def cells(section):
    return [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", section)]


def test_headings_on_one_line_hold_no_brackets():
    assert Heading("utilisation of\nstate (entropy)", "z.0%").line == "Utilisation of state, entropy"
    for heading in (FIGURE_HEADINGS | GROUP_HEADINGS).values():
        assert not {"(", ")", "\n"} & set(heading.line)


def test_numbers_are_those_of_the_comparison(profiles):
    comparison = compare(profiles, {"<b>other</b>": 12.345})
    section = comparison_section(profiles, {"<b>other</b>": 12.345})
    # Modulation says little without the controls of a study, there is no network, and no heads share a cache.
    absent = ("modulation", "norm_modulation", "network_entropy", "redundancy", "readout_total_entropy")
    shown = [name for name in FIGURES if name not in absent]
    found = cells(section)
    assert len(found) == 2 * len(shown)
    for index, model in enumerate(comparison.models):
        row = dict(zip(shown, found[index * len(shown) :], strict=False))
        assert float(row["average_entropy"]) == pytest.approx(model.average_entropy, abs=0.006)
        assert float(row["state_bytes"].replace(",", "")) == model.state_bytes
        # The first has a state, the second a cache.
        assert row["state_utilisation"] == ("–" if index else f"{model.state_utilisation:.0%}")
        assert row["ceiling_utilisation"] == (f"{model.ceiling_utilisation:.0%}" if index else "–")
        assert row["recall_perplexity"] == ("12.3" if index else "–")
    assert "not of the same tokens" in section
    for name in FIGURES:
        assert section.count(FIGURE_HEADINGS[name].line) == (2 if name in shown else 0)


def test_names_stay_text(profiles):
    section = comparison_section(profiles)
    assert "<b>other" not in section
    assert "&lt;b&gt;other" in section
    assert "<img" not in section


def test_one_profile_has_nothing_beside_it(profiles):
    assert 'id="comparison"' in render(profiles)
    assert 'id="comparison"' not in render(profiles[:1])


def test_in_a_browser(browser, profiles, tmp_path):
    path = write_report(profiles, tmp_path / "page.html", {"<b>other</b>": 2.0})
    visit = Visit(browser, path, 360, "dark")
    width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    rows = visit.page.locator("#comparison tbody tr")
    assert rows.count() == 2
    assert rows.nth(1).locator("th").inner_text() == "<b>other</b>"
    assert visit.complaints == []
    visit.context.close()
