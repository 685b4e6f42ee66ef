"""The views of a report in a real browser without a network: heads, zoom, singular values, table, strange tokens."""

import numpy as np
import pytest
from playwright.sync_api import expect
from report.visit import Visit

from statesize.profiling import TOLERANCE_LADDER
from statesize.report.page import page as report_page


@pytest.fixture(scope="module")
def visit(browser, ladder_profile, tmp_path_factory):
    path = report_page([ladder_profile]).write(tmp_path_factory.mktemp("report") / "report.html")
    visit = Visit(browser, path)
    yield visit
    visit.context.close()


@pytest.fixture(autouse=True)
def no_complaint_and_no_request(visit):
    yield
    assert visit.complaints == []
    assert len(visit.requests) == 1


def chosen(page, select):
    return page.locator(f"#{select}").evaluate("select => select.selectedOptions[0].textContent")


def test_chart_and_text_point_at_one_position(visit, ladder_profile):
    page = visit.page
    layer = ladder_profile.mixers[0]
    assert chosen(page, "layer") == layer
    area = background(page, "#positions")
    page.mouse.move(area["x"] + area["width"] * 10 / 39, area["y"] + 40)
    said = page.locator("#said")
    expect(said).to_contain_text("Position 10: ")
    assert page.locator("#line").bounding_box()["x"] == pytest.approx(area["x"] + area["width"] * 10 / 39, abs=1.5)
    ess = ladder_profile.mixer(layer)["entropy"].values[0, :, 10].mean()
    assert float(said.inner_text().split()[3]) == pytest.approx(ess, rel=1e-3)
    assert "of at most 2, before “" in said.inner_text()
    assert page.locator("#text mark").inner_text() == ladder_profile.tokens["tokens"].values[0, 10]
    page.locator('#text [data-position="30"]').hover()
    expect(said).to_contain_text("Position 30: ")
    page.focus("#along")
    page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("Position 31: ")
    assert page.locator("#text mark").count() == 1


def background(page, chart):
    page.locator(chart).scroll_into_view_if_needed()
    return page.locator(f"{chart} svg path.background, {chart} svg g.background").first.bounding_box()


def test_cell_of_the_map_chooses_its_head(visit, ladder_profile):
    page = visit.page
    cells = page.locator("#map .cells button")
    assert cells.count() == 6
    cells.nth(4).click()
    assert (chosen(page, "head"), chosen(page, "layer")) == ("head 1", "layers.1.mixer")
    expect(page.locator('#map .cells button[aria-pressed="true"]')).to_have_count(1)
    expect(page.locator("#caption")).to_contain_text("layers.1.mixer, head 1")
    # The keyboard reads out the chosen head, with the numbers of the profile.
    page.focus("#along")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    said = page.locator("#said").inner_text()
    ess = ladder_profile.mixer("layers.1.mixer")["entropy"].values[0, 1, 5]
    assert said.startswith("Position 5: ESS ")
    assert float(said.split()[3]) == pytest.approx(ess, abs=1e-3)


def test_pointer_reads_tokens_and_delimiters(visit):
    page = visit.page
    page.click("#whole")
    page.wait_for_selector("#positions svg")
    area = background(page, "#positions")
    for position, token in ((2, "🧪"), (3, "\"'>"), (20, "4 (special token)")):
        x = area["x"] + area["width"] * position / 39
        page.mouse.move(x - 1, area["y"] + area["height"] / 2)
        page.mouse.move(x, area["y"] + area["height"] / 2)
        tooltip = page.locator("#vg-tooltip-element.visible")
        expect(tooltip).to_contain_text(f"position{position}ESS")
        box = tooltip.bounding_box()
        assert box["y"] + box["height"] <= area["y"] + 1 or box["y"] >= area["y"] + area["height"]
        cells = tooltip.locator("td").all_text_contents()
        assert cells[:2] == ["token", token]
        assert {"ceiling", "of the ceiling"} <= set(cells)
    page.mouse.move(0, 0)


def test_tolerance_is_drawn_at_all_rungs(visit, ladder_profile):
    page = visit.page
    page.select_option("#layer", index=1)
    page.select_option("#head", label="head 0")
    expect(page.locator("#tolerance-caption")).to_contain_text("head 0")
    points = page.locator("#tolerance svg .mark-symbol.role-mark path")
    assert points.count() == len(TOLERANCE_LADDER)
    labels = [point.get_attribute("aria-label") for point in points.all()]
    shown = [float(label.split("Relative tolerance-ESS: ")[1].split(";")[0]) for label in labels]
    mixer = ladder_profile.mixer("layers.1.mixer")
    order = np.argsort(mixer["relative_threshold"].values)
    expected = mixer["relative_count"].values[0, 0, 1:].mean(0)[order]
    assert shown == pytest.approx(expected.tolist(), abs=0.006)


def test_table_sorts(visit, ladder_profile):
    page = visit.page
    visit.unfold()
    rows, share = ".scroll[aria-labelledby=table-0-title]", "th[data-name=state_utilisation]"
    for direction in ("ascending", "descending"):
        page.click(f"{rows} {share} button")
        assert page.get_attribute(f"{rows} {share}", "aria-sort") == direction
    column = page.eval_on_selector(f"{rows} {share}", "heading => heading.cellIndex") + 1
    shares = "cells => cells.map(cell => cell.dataset.value)"
    shown = [float(cell) for cell in page.eval_on_selector_all(f"{rows} td[style]:nth-child({column})", shares)]
    expected = [row["state_utilisation"] for row in ladder_profile.summary_rows()]
    assert shown == pytest.approx(sorted(expected, reverse=True), rel=1e-5)


def test_strange_tokens_are_text(visit):
    page = visit.page
    page.click("#whole")
    page.wait_for_selector("#positions svg")
    page.focus("#along")
    page.keyboard.press("Home")
    mark = page.locator("#text mark")
    assert mark.inner_text() == f"{'<script>alert(1)</script>' * 3}"[:60] + "… (10,000 signs)"
    for token in ("\u202egnp.exe", "🧪", "\"'>", "\u2028</script><script>alert(2)</script>"):
        page.keyboard.press("ArrowRight")
        assert mark.evaluate("mark => mark.textContent") == token
        assert mark.evaluate("mark => mark.firstChild.children.length") == 0


def test_choices_redraw_the_chart(visit):
    page = visit.page
    page.select_option("#metric", value="relative_count")
    expect(page.locator("#caption")).to_contain_text("Relative tolerance-ESS, singular values above 1 % of the largest")
    # This ESS is near its ceiling: a logarithmic axis would show nothing more.
    assert not page.locator("#scale").is_visible()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    for view in ("positions", "chart-1", "tolerance"):
        assert page.locator(f"#{view} svg").count() == 1
