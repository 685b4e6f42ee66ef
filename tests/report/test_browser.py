"""The report in a real browser without a network: no request, no error, and open to everybody."""

import pytest
from playwright.sync_api import expect
from report.visit import Visit, violations

from statesize.report.page import page as report_page

VIEWS = ("positions", "tolerance", "chart-0")


@pytest.fixture(scope="module")
def report(hostile_profile, ladder_profile, tmp_path_factory):
    return report_page([ladder_profile, hostile_profile]).write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module", params=[pytest.param((1280, "light"), marks=pytest.mark.slow), (360, "dark")], ids=str)
def visit(browser, report, request):
    visit = Visit(browser, report, *request.param)
    yield visit
    visit.context.close()


def test_opens_without_network_requests_and_errors(visit, report):
    for view in VIEWS:
        assert visit.page.locator(f"#{view} svg").count() == 1, view
        assert visit.page.locator(f"#{view} svg path, #{view} svg line").count() > 2, view
    for place, rows in enumerate((2, 4)):
        assert visit.page.locator(f"section[aria-labelledby=table-{place}-title] tbody tr").count() == rows
    assert visit.requests == [report.as_uri()]
    assert visit.complaints == []


def test_fits_the_width_of_the_screen(visit):
    width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    for view in VIEWS:
        box = visit.page.locator(f"#{view} svg").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width[1]


def test_no_serious_violation_of_accessibility(visit):
    # A special token may have any shade.
    visit.page.evaluate("for (const one of document.querySelectorAll('#text > *')) one.classList.add('special')")
    assert violations(visit.page) == []
    visit.unfold()
    assert violations(visit.page) == []


def test_a_model_without_a_ladder_says_so(visit, hostile_profile):
    page = visit.page
    page.select_option("#model", label=hostile_profile.model)
    expect(page.locator("#tolerance")).to_be_hidden()
    assert "TOLERANCE_LADDER" in page.locator("#tolerance-caption").inner_text()
    page.select_option("#model", index=0)
    page.wait_for_selector("#tolerance svg")
    assert visit.complaints == []


def test_printed_page_is_light_and_has_no_choices(visit):
    assert visit.page.locator("#layer").is_visible()
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visit.page.locator("#layer").is_visible()
    assert visit.complaints == []
    visit.page.emulate_media(media="screen")
