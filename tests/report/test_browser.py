"""The report in a real browser without a network: no request, no error, charts that answer the pointer."""

import pytest
from report.visit import Visit, chromium

from statesize.report import write_report


@pytest.fixture(scope="module")
def report(hostile_profile, tmp_path_factory):
    return write_report([hostile_profile], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(params=[(1280, "light"), (360, "dark")], ids=["desktop", "phone"])
def visit(browser, report, request):
    visit = Visit(browser, report, *request.param)
    yield visit
    visit.context.close()


def test_opens_without_network_requests_and_errors(visit, report):
    assert visit.page.locator("#layers svg").count() == 1
    assert visit.page.locator("#positions svg").count() == 1
    assert visit.page.locator("#positions svg path").count() > 5
    assert visit.requests == [report.as_uri()]
    assert visit.complaints == []


def test_fits_the_width_of_the_screen(visit):
    width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    for chart in ("#layers svg", "#positions svg"):
        box = visit.page.locator(chart).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width[1]


def test_pointer_reads_the_token(browser, report):
    visit = Visit(browser, report)
    visit.page.locator("#positions svg").scroll_into_view_if_needed()
    area = visit.page.locator("#positions svg g.background, #positions svg path.background").first.bounding_box()
    # Sequence 0 has 17 positions; position 0 is the script tag, position 8 <eos>.
    for position, token in ((0, "<script>alert(1)</script>"), (2, "שלום"), (8, "<eos>")):
        x = area["x"] + area["width"] * position / 16 + (2 if position == 0 else 0)
        visit.page.mouse.move(x - 1, area["y"] + area["height"] / 2)
        visit.page.mouse.move(x, area["y"] + area["height"] / 2)
        tooltip = visit.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        text = tooltip.inner_text().split()
        assert text[:2] == ["token", token]
        assert {"position", "ESS", "ceiling", "norm"} <= set(text)
        assert text[text.index("position") + 1] == str(position)
        assert visit.page.locator("#context mark").inner_text() == token
    assert visit.complaints == []
    visit.context.close()


def test_choices_redraw_the_chart(browser, report):
    visit = Visit(browser, report)
    page = visit.page
    for select, label in (
        ("layer", "layers.1.mixer"),
        ("sequence", "2 (8 tokens)"),
        ("metric", "Relative tolerance-ESS"),
    ):
        page.select_option(f"#{select}", label=label)
    page.select_option("#scale", value="symlog")
    page.wait_for_function("document.querySelector('#caption').textContent.includes('sequence 2')")
    caption = page.locator("#caption").inner_text()
    assert caption.startswith("Relative tolerance-ESS of <img")
    assert "layers.1.mixer" in caption
    page.wait_for_selector("#positions svg")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert page.locator("#positions svg").count() == 1
    assert visit.complaints == []
    visit.context.close()
