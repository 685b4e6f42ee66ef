"""The page of any result: its parts as plain text, and charts that complain of nothing."""

import re

import altair as alt
import pytest
from playwright.sync_api import expect
from report.visit import Visit, violations

from statesize.report import vega
from statesize.report.result_page import RESULT, PageChart, ResultPage
from statesize.report.table import PageTable, Shown

HOSTILE = "<b onclick=alert(1)>"


@pytest.mark.parametrize(("low", "width"), [(None, 1280), (0.1, 390)])
def test_estimates_with_and_without_intervals(browser, tmp_path, low, width):
    rows = [{"of": HOSTILE, "size": size, "lost": 1 / size, "low": low, "high": low and 1.0} for size in (2, 4, 8)]
    x, y = alt.X("size:Q", scale=vega.LOGARITHMIC), alt.Y("lost:Q")
    chart = vega.estimates(rows, x, y, "of", [vega.hint("lost", "lost", ".2f")], 0.01)
    table = PageTable(HOSTILE, ("of", HOSTILE), [(HOSTILE, 1.0), (HOSTILE, None)], HOSTILE)
    notes, facts = {HOSTILE: [HOSTILE], "Nothing": []}, {HOSTILE: HOSTILE}
    page = ResultPage(HOSTILE, HOSTILE, [PageChart(HOSTILE, chart.to_dict(), HOSTILE)], [table, table], notes, facts)
    visit = Visit(browser, page.write(tmp_path / "page.html"), width)
    # The threshold, and the intervals where there are any.
    assert visit.page.locator(".chart .mark-rule.role-mark line").count() == 1 + (0 if low is None else len(rows))
    assert visit.page.locator("b").count() == 0
    assert "Nothing" not in visit.page.inner_text("main")
    assert visit.complaints == []
    assert violations(visit.page) == []
    visit.context.close()


def test_what_was_found_comes_first_and_details_are_folded(browser, tmp_path):
    small = PageTable("Small", ("model", "ESS"), [("a", 1.0)], terms={"ESS": "How many numbers."})
    long = PageTable("Long", ("model", "ESS"), [(f"m{at}", float(at)) for at in range(9)])
    chart = PageChart("Chart", alt.Chart(alt.Data(values=[{"x": 1}])).mark_point().encode(x="x:Q").to_dict())
    notes = {"Notes": ["Known."], RESULT: ["Told."]}

    def titles(*tables):
        made = ResultPage("Title", "Found.", [chart], tables, notes, {"Threads": "1"})
        return re.findall(r"(?:(<summary>)|(?:<section[^>]*>))<h2[^>]*>(.*?)</h2>", made.render()), made

    shown, made = titles(small, long)
    assert [title for _, title in shown] == ["Small", RESULT, "Chart", "Notes", "Long", "How these numbers were made"]
    assert [title for folded, title in shown if folded] == ["Long", "How these numbers were made"]
    # A long table is no glance, a wide one is looked up.
    assert titles(long, small)[0][2:4] == [("", "Notes"), ("", "Long")]
    wide = PageTable("Wide", [f"c{at}" for at in range(10)], [range(10)])
    assert titles(wide)[0][3] == ("<summary>", "Wide")
    visit = Visit(browser, made.write(tmp_path / "page.html"))
    assert visit.page.locator("nav a").all_inner_texts() == ["Small", RESULT, "Chart", "Notes", "Details"]
    assert not visit.page.locator("text=m8").is_visible()
    assert visit.page.locator("input").count() == 1
    visit.page.click("nav >> text=Details")
    expect(visit.page.locator("text=m8")).to_be_visible()
    visit.page.locator(".tools input").fill("M7")
    assert visit.page.locator(".tools:has(input) output").inner_text() == "1 of 9 rows"
    assert not visit.page.locator("text=m8").is_visible()
    assert not visit.page.locator("dt >> text=Threads").is_visible()
    visit.page.emulate_media(media="print")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("dt >> text=Threads").is_visible()
    assert visit.complaints == []
    visit.context.close()


def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_is_saved_as_text(browser, tmp_path):
    table = PageTable("Rows", {"model": "The model", "ess": "ESS"}, [("=cmd|'x'", Shown(1.23456789, "1.2 ± 0.1"))])
    visit = Visit(browser, ResultPage("Title", "Found.", [], [table]).write(tmp_path / "page.html"))
    assert visit.page.locator("thead").inner_text().split() == ["The", "model", "ESS"]
    assert visit.page.locator("td").inner_text() == "1.2 ± 0.1"
    with visit.page.expect_download() as download:
        visit.page.click(".tools button")
    download.value.save_as(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == b"model,ess\r\n'=cmd|'x',1.23457\r\n"
    assert visit.complaints == []
    visit.context.close()
