"""A count that is known between bounds only is shown as bounds, wherever it is shown."""

import re

import pytest
from oracles.tiny_families import tiny, token_ids
from report.visit import Visit

from statesize import compare, profile
from statesize.cli.shared.summary import comparison_page, summary
from statesize.cli.shared.table import print_page
from statesize.lab.trends.changes import Series
from statesize.lab.trends.points import Point
from statesize.profiling import Profile
from statesize.report import write_report
from statesize.report.charts import layers
from statesize.report.document import cell_text
from statesize.report.tables import comparison_table, group_tables, layer_table
from statesize.report.words import headline, model_line
from statesize.results.summary import ess_values, middle_bounds

APART = 3
BOUNDS = r"(\d+\.?\d*)–(\d+\.?\d*)"


@pytest.fixture(scope="module")
def bounded():
    tree = profile(tiny("llama"), token_ids(1), name="bounded").to_xarray()
    for name in tree.children:
        node = tree[name].to_dataset()
        if "layers.1." in name:
            node["relative_lower"] = node["relative_lower"] // 2
        node["relative_upper"] = node["relative_lower"] + APART
        # As between bounds it is stored rounded down.
        node["relative_count"] = (node["relative_lower"] + node["relative_upper"]) // 2
        tree[name] = node
    return Profile(tree)


@pytest.fixture(scope="module")
def ends(bounded):
    """Averages of the lower and the upper bounds of the first layer."""
    node = bounded.mixer(bounded.mixers[0])
    return [float(node[name].values[:, :, 1:, 0].mean()) for name in ("relative_lower", "relative_upper")]


def apart(text, by=APART):
    least, most = map(float, re.search(BOUNDS, text).groups())
    return most - least == pytest.approx(by, abs=0.11)


def test_the_middle_is_not_rounded_down(bounded, ends):
    row = bounded.summary_rows()[0]
    assert row["average_relative_count"] == pytest.approx(sum(ends) / 2, rel=1e-6)
    assert ess_values(bounded.mixer(row["layer"]), "relative_count")[:, :, 1:].mean() == pytest.approx(sum(ends) / 2)
    assert row["average_relative_count_error"] == pytest.approx(APART / 2)


def test_in_sentences(bounded):
    for sentence in (headline([bounded], "relative_count"), model_line(bounded, "relative_count")):
        assert apart(sentence)
    middle = middle_bounds(bounded.mixer(bounded.mixers[0]), "relative_count")
    assert f"{middle[0]:.1f}–{middle[1]:.1f} in layer" in model_line(bounded, "relative_count")
    assert "–" not in headline([bounded]) + model_line(bounded)


def test_in_tables(bounded, ends, capsys):
    shown = f"{ends[0]:.1f}–{ends[1]:.1f}"
    assert shown in between_bounds(layer_table([bounded]))
    print_page(summary(bounded, wide=True))
    assert f" {shown} " in capsys.readouterr().out
    compared = compare([bounded, bounded])
    print_page(comparison_page([bounded, bounded], compared, wide=True))
    assert len(re.findall(BOUNDS, capsys.readouterr().out)) >= 2
    assert compared.models[0].average_relative_count_error == pytest.approx(APART / 2)
    assert compared.models[0].total_relative_count_error > APART
    assert len(between_bounds(comparison_table(compared.models, [bounded, bounded]))) >= 2
    # Joint and alone, of each layer.
    (groups,) = group_tables([bounded])
    assert len(between_bounds(groups)) == 2 * len(bounded.mixers)


def between_bounds(table):
    return [text for row in table.rows for cell in row if re.fullmatch(BOUNDS, text := cell_text(cell))]


def test_in_charts(bounded):
    drawn = layers([bounded], "relative_count").to_dict()["datasets"]["layers"]
    low, high = middle_bounds(bounded.mixer(0), "relative_count")
    assert drawn[0]["said"] == f"{low:.2f}–{high:.2f}"
    assert high - low == pytest.approx(APART)
    for drawn in (bounded.plot.positions(metric="relative_count"), bounded.plot.tolerance(), bounded.plot.spectrum()):
        chart = drawn.to_dict()
        tables = chart["datasets"]
        assert all(row["high"] - row["low"] == pytest.approx(APART) for row in tables["bounds"])
        assert any(layer["data"]["name"] == "bounds" for layer in chart["layer"])
        assert all(apart(row["said"]) for rows in tables.values() for row in rows if "said" in row)
    exact = bounded.plot.positions().to_dict()
    assert not any(layer["data"]["name"] == "bounds" for layer in exact["layer"])
    assert not any("–" in row["said"] for row in exact["datasets"]["positions"])


def test_in_series(bounded, ends):
    one, facts = Point.of(bounded), {"tokens_sha256": "", "asked": {}, "versions": {}}
    found = Series(names=("a", "b"), places=None, log={}, tokens=(23,), points=(one, one), skipped={}, facts=facts)
    layer = found.to_dict()["layers"][1]
    for name, end in zip(("relative_lower", "relative_upper"), ends, strict=True):
        assert layer[name] == pytest.approx([end, end], rel=1e-5)
    assert layer["relative_count"] == pytest.approx([sum(ends) / 2] * 2, rel=1e-5)
    row = found._row(bounded.mixers[0])
    assert row["first count"] == row["last count"] == f"{ends[0]:.4g}–{ends[1]:.4g}"


def test_on_the_page(browser, bounded, tmp_path):
    visit = Visit(browser, write_report([bounded], tmp_path / "report.html"))
    page = visit.page
    page.select_option("#metric", value="relative_count")
    assert apart(page.locator("#chart-2").locator("xpath=../..").locator("figcaption").inner_text())
    cell = page.locator("#map .cells button").first
    assert apart(cell.get_attribute("aria-label"))
    cell.hover()
    said = page.locator("#map-tip").inner_text()
    assert apart(said.partition("ESS, numbers per channel: ")[2])
    # A head stores 8 numbers of 4 bytes for each.
    assert apart(said.partition("ESS, bytes per head: ")[2], 8 * 4 * APART)
    assert all(apart(line) for line in page.locator("#map .extremes li").all_inner_texts())
    cell.click()
    page.focus("#along")
    page.keyboard.press("ArrowRight")
    assert re.match(r"Position \d+: ESS [\d.]+–[\d.]+ of at most", page.locator("#said").inner_text())
    assert re.search(r": \d+–\d+ above \S+ of the largest", page.locator("#spectrum-caption").inner_text())
    page.locator('#text [data-position="12"]').hover()
    assert apart(page.locator("#said").inner_text())
    assert visit.complaints == []
    visit.context.close()
