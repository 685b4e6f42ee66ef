"""The map of layers by heads, the heads that it names, the shaded text, and tables on a phone."""

import re

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from report.visit import Visit
from transformers import LlamaConfig, LlamaForCausalLM

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import MARKED, SINK
from statesize.profiling import TOLERANCE_LADDER, Profile, profile
from statesize.report.head_map import PAGE_HEADS
from statesize.report.page import page as report_page
from statesize.results.summary import at_middle, ess_values, without_sinks

LAYERS, HEADS, LENGTH = 18, 9, 12


@pytest.fixture(scope="module")
def deep():
    """A profile of 18 layers of nine heads that share three caches; one head in five has a sink."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=18,
        intermediate_size=18,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=3,
    )
    model = LlamaForCausalLM(config).eval()
    tree = profile(model, torch.arange(LENGTH)[None], name="deep", relative_tolerances=TOLERANCE_LADDER[:3]).to_xarray()
    g = np.random.default_rng(0)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.self_attn"
        node = tree[name].to_dataset(inherit=False)
        # Untrained heads are all alike.
        node["entropy"][:] = node["entropy"].values * g.uniform(0.1, 1, (1, HEADS, 1))
        node["sink_share"][:] = np.where((np.arange(HEADS) + layer) % 5 == 0, MARKED + 0.1, MARKED - 0.1)[None]
        node["without_sink"][:] = np.where(node["sink_share"].values > MARKED, g.uniform(10, 20, (1, HEADS)), np.nan)
        tree[name] = node
    return Profile(tree)


@pytest.fixture(scope="module")
def small():
    config = ModelConfig(mixer="gla", vocabulary_size=8, width=8, heads=4, layers=2, key_size=2)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    return profile(model, torch.arange(20)[None] % 8, name="small")


@pytest.fixture(scope="module", params=[pytest.param(1280, marks=pytest.mark.slow), 390])
def visit(browser, deep, small, tmp_path_factory, request):
    path = report_page([deep]).write(tmp_path_factory.mktemp("report") / "report.html")
    visit = Visit(browser, path, request.param)
    yield visit
    assert visit.complaints == []
    visit.context.close()


def means(found, metric="entropy"):
    return np.array([at_middle(node, ess_values(node, metric)).mean(0) for node in map(found.mixer, found.mixers)])


def test_one_cell_a_head_on_the_scale_of_the_data(visit, deep):
    page, values = visit.page, means(deep)
    assert page.input_value("#measure") == "ess"
    labels = page.eval_on_selector_all("#map .cells button", "all => all.map(one => one.getAttribute('aria-label'))")
    assert len(labels) == LAYERS * HEADS
    for place, label in enumerate(labels):
        layer, head = divmod(place, HEADS)
        name, _, rest = label.partition(": ")
        assert name == f"layer {layer}, head {head}"
        assert float(rest.split(",")[0]) == pytest.approx(values[layer, head], abs=0.0501)
        assert ("attention" in rest) == ((head + layer) % 5 == 0)
    assert page.locator("#map .cells button b").count() == sum("attention" in label for label in labels)
    expect(page.locator("#map-scale")).to_contain_text(f"one token {SINK}")
    expect(page.locator("#map-scale")).to_contain_text(f"{values.min():.1f}{values.max():.1f}")
    colours = page.eval_on_selector_all("#map .cells button", "all => all.map(one => one.style.background)")
    assert colours[values.argmin()] == "rgb(68, 1, 84)"
    assert colours[values.argmax()] == "rgb(253, 231, 37)"
    # The last one is legible and inside the screen.
    box = page.locator("#map .cells button").last.bounding_box()
    assert 26 <= box["width"] <= box["x"] + box["width"] <= page.viewport_size["width"]


def test_heads_with_most_and_least_are_named(visit, deep):
    page = visit.page
    for metric in ("entropy", "relative_count"):
        page.select_option("#metric", value=metric)
        values = means(deep, metric)
        for column, order in ((0, -np.sort(-values.ravel())), (1, np.sort(values.ravel()))):
            lines = page.locator("#map .extremes ol").nth(column).locator("li").all_inner_texts()
            assert len(lines) == 5
            for line, value in zip(lines, order, strict=False):
                name, shown = line.split(": ")
                layer, head = (int(part.split()[1]) for part in name.split(", "))
                assert values[layer, head] == pytest.approx(value, abs=1e-6)
                assert float(shown) == pytest.approx(value, abs=0.0501)
    page.select_option("#metric", value="entropy")


def test_the_menu_shows_other_numbers(visit, deep):
    page = visit.page
    page.select_option("#measure", value="sinkless")
    labels = page.eval_on_selector_all("#map .cells button", "all => all.map(one => one.getAttribute('aria-label'))")
    shown = [float(label.partition(": ")[2].split(",")[0]) for label in labels]
    assert shown == pytest.approx(
        np.array([without_sinks(deep.mixer(name))[0] for name in deep.mixers]).ravel(), abs=0.0501
    )
    page.select_option("#measure", value="ess")


def test_a_curve_says_where_it_is_with_sinks(visit):
    page, caption = visit.page, visit.page.locator("#caption")
    page.select_option("#layer", label="model.layers.1.self_attn")
    page.select_option("#head", label="mean over all")
    expect(caption).to_have_text(re.compile(", sequence 1, with attention sinks$"))
    # Head 4 alone has one in this layer.
    for head in range(HEADS):
        page.select_option("#head", label=f"head {head}")
        expect(caption).to_have_text(re.compile(f"head {head}, sequence 1{', with attention sinks' * (head == 4)}$"))


def test_the_keyboard_reads_the_map(visit):
    page = visit.page
    tip = page.locator("#map-tip")
    assert page.locator('#map .cells button[tabindex="0"]').count() == 1
    page.locator('#map .cells button[tabindex="0"]').focus()
    expect(tip).to_contain_text("layer 0, head 0: ")
    layers_go_across = page.viewport_size["width"] > 500
    page.keyboard.press("ArrowRight" if layers_go_across else "ArrowDown")
    expect(tip).to_contain_text("layer 1, head 0: ")
    page.keyboard.press("ArrowDown" if layers_go_across else "ArrowRight")
    expect(tip).to_contain_text("layer 1, head 1: ")
    assert page.locator('#map .cells button[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    assert page.locator("#map .cells button:focus").get_attribute("aria-pressed") == "true"
    expect(page.locator("#caption")).to_contain_text("layers.1.self_attn, head 1")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.locator("#map .cells button").nth(20).hover()
    expect(tip).to_contain_text("layer 2, head 2: ")
    # Where there is no room below, it stands above.
    last = page.locator("#map .cells button").last
    last.evaluate("one => one.scrollIntoView({ block: 'end' })")
    last.hover()
    expect(tip).to_contain_text(f"layer {LAYERS - 1}, head {HEADS - 1}: ")
    box = tip.bounding_box()
    assert 0 <= box["x"] <= page.viewport_size["width"] - box["width"]
    assert box["y"] + box["height"] <= page.viewport_size["height"]


def test_tokens_are_shaded_by_the_layer_chosen(visit, deep):
    page = visit.page
    page.select_option("#layer", label="model.layers.7.self_attn")
    page.select_option("#head", label="mean over all")
    curve = deep.mixer("model.layers.7.self_attn")["entropy"].values[0].mean(0)[:LENGTH]
    inside = curve[1:]
    expect(page.locator("#text-scale")).to_contain_text(f"deep, layer 7: {inside.min():.1f}{inside.max():.1f}")
    styles = page.eval_on_selector_all("#text > span", "all => all.map(one => one.getAttribute('style'))")
    shares = np.array([float(style.split("var(--accent) ")[1].split("%")[0]) for style in styles])[1:]
    expected = 50 * (inside - inside.min()) / (inside.max() - inside.min())
    assert shares == pytest.approx(expected, abs=0.6)
    assert page.locator("#text").evaluate("one => one.scrollWidth <= one.clientWidth")


def test_a_table_that_scrolls_says_so(visit):
    page = visit.page
    visit.unfold()
    region = page.locator(".scroll[aria-labelledby=table-0-title]")
    said = page.locator("p.scrolls:has(+ .scroll[aria-labelledby=table-0-title])")
    assert region.evaluate("one => one.scrollHeight > one.clientHeight")
    sideways = region.evaluate("one => one.scrollWidth > one.clientWidth + 1")
    assert sideways or page.viewport_size["width"] > 500
    expect(said).to_contain_text("rows below")
    assert ("to the right" in said.inner_text()) == sideways


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_all_models_are_in_the_map(browser, deep, small, tmp_path, width):
    visit = Visit(browser, report_page([small, deep]).write(tmp_path / "page.html"), width)
    page = visit.page
    assert page.locator("#map h3").all_inner_texts() == ["small", "deep"]
    maps = page.locator("#map .cells")
    assert [maps.nth(place).locator("button").count() for place in range(2)] == [2 * 4, LAYERS * HEADS]
    # A cell of the second map brings its model into all that follows.
    maps.nth(1).locator("button").nth(HEADS + 2).click()
    expect(page.locator("#caption")).to_contain_text("deep, model.layers.1.self_attn, head 2")
    expect(page.locator("#text-scale")).to_contain_text("deep, layer 1, head 2:")
    assert page.input_value("#model") == "1"
    expect(page.locator('#map .cells button[aria-pressed="true"]')).to_have_count(1)
    page.set_viewport_size({"width": 1670 - width, "height": 900})
    expect(page.locator('#map .cells button[aria-pressed="true"]')).to_have_count(1)
    assert visit.complaints == []
    visit.context.close()


def test_tokens_between_those_measured_have_a_shade_and_it_is_said(browser, tmp_path):
    model = LanguageModel(ModelConfig("gla", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    found = profile(model, torch.arange(16)[None] % 8, name="rare", positions=[3, 8, 13])
    visit = Visit(browser, report_page([found]).write(tmp_path / "page.html"))
    shades = visit.page.eval_on_selector_all("#text > span", "all => all.map(one => one.style.background)")
    assert all(shades)
    measured = [int(position) for position in found.mixer(found.mixers[0])["position"].values if position < 16]
    assert 1 < len(measured) < 16
    for token, shade in enumerate(shades):
        # Of two that are as near, the later one.
        assert shade == shades[min(reversed(measured), key=lambda position, token=token: abs(position - token))]
    said = visit.page.locator("#text-scale")
    expect(said).to_contain_text("each token has the shade of the nearest cut. Measured: 3 of 15 cuts. --positions all")
    visit.context.close()


def test_of_hundreds_of_channels_some_are_cells(browser, tmp_path):
    model = LanguageModel(ModelConfig("s6", vocabulary_size=8, width=130, heads=2, layers=2, key_size=1))
    found = profile(model, torch.arange(6)[None], channels=100, name="wide")
    visit = Visit(browser, report_page([found]).write(tmp_path / "page.html"), 390)
    assert visit.page.locator("#map .cells button").count() == 2 * PAGE_HEADS
    drawn = visit.page.locator("section[aria-labelledby=chart-0-title]").inner_text()
    assert "of more than 64 heads or channels 64. The table covers all." in drawn
    # The axis has numbers of layers only: a cell stands for other channels in each.
    assert visit.page.locator("#map .axis").all_inner_texts() == ["0", "1"]
    assert visit.complaints == []
    visit.context.close()
