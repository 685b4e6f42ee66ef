"""How much a page carries."""

import numpy as np
import pytest
import torch
from report.unpacking import unpacked

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report import head_map as extent
from statesize.report import write_report
from statesize.report.head_map import PAGE_HEADS, Extent, HeadMap, choose_extent, clipped, shown_heads
from statesize.report.names import metric_titles

METRICS = {"entropy": "Entropy-ESS", "relative_count": "Counts"}


@pytest.fixture(scope="module")
def three():
    model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    return profile(model, torch.arange(30).reshape(3, 10) % 8, relative_tolerances=(0.01,))


# One mixer of two heads, ten positions and one relative tolerance: ten means and twenty head points a sequence, and
# two counts a place.
@pytest.mark.parametrize(
    ("heads", "means", "expected"),
    [
        (80_000, 30_000, Extent(3, stride=1, head_stride=1, ladder_positions=4)),
        (40, 30_000, Extent(2, stride=1, head_stride=1, ladder_positions=6)),
        (80_000, 10, Extent(1, stride=1, head_stride=1, ladder_positions=12)),
        (19, 30_000, Extent(1, stride=1, head_stride=2, ladder_positions=12)),
        (80_000, 4, Extent(1, stride=3, head_stride=1, ladder_positions=12)),
        (4, 4, Extent(1, stride=3, head_stride=2, ladder_positions=12)),
    ],
)
def test_extent_fits_its_budget(three, monkeypatch, heads, means, expected):
    monkeypatch.setattr(extent, "HEAD_POINTS", heads)
    monkeypatch.setattr(extent, "MEAN_POINTS", means)
    monkeypatch.setattr(extent, "LADDER_POINTS", 24)
    assert choose_extent([three]) == expected


def test_page_keeps_to_the_extent(three):
    page = HeadMap([three], METRICS, Extent(2, stride=3, head_stride=2, ladder_positions=4)).data
    layer = page["models"][0]["layers"][0]
    assert layer["positions"] == [0, 3, 6, 9]
    mixer = three.mixer(three.mixers[0])
    curves = layer["ess"]["entropy"]
    assert unpacked(curves["mean"]) == pytest.approx(mixer["entropy"].values[:2, :, ::3].mean(1).ravel(), abs=1e-3)
    assert unpacked(curves["heads"]) == pytest.approx(mixer["entropy"].values[:2, :, ::6].ravel(), abs=1e-3)
    (text,) = page["texts"].values()
    assert len(text) == 2


def test_heads_that_are_drawn_are_spread(three):
    tree = three.to_xarray()
    node = tree["layers.0.mixer"].to_dataset()
    wide = node.isel(head=[0, 1] * 40).assign_coords(head=np.arange(0, 800, 10))
    shown = shown_heads(wide)
    assert len(shown) == PAGE_HEADS
    assert (shown[0], shown[-1]) == (0, 79)


def test_long_tokens_are_clipped():
    assert clipped("x" * 10_000) == f"{'x' * 60}… (10,000 signs)"


def test_profiles_of_the_same_tokens_share_their_text(three):
    page = HeadMap([three, three], METRICS, choose_extent([three])).data
    assert len(page["texts"]) == 1
    assert len(page["models"]) == 2


def test_a_profile_without_relative_tolerances_has_no_such_curve(three):
    tree = three.to_xarray()
    bare = Profile(tree)
    tree["layers.0.mixer"] = tree["layers.0.mixer"].to_dataset().isel(relative_threshold=slice(0, 0))
    assert list(metric_titles([bare])) == ["entropy"]
    assert list(metric_titles([three])) == list(METRICS)


def test_page_of_64_layers_stays_small(ladder_profile, tmp_path):
    tree = ladder_profile.to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    long = node.isel(head=np.arange(32) % 3, position=np.arange(128) % 40)
    long = long.assign_coords(head=np.arange(32), position=np.arange(128))
    # Curves and counts of real models are smoother, and take less.
    noise = np.random.default_rng(0)
    for name in ("entropy", "ceiling", "norm"):
        long[name] = long[name].dims, noise.uniform(1, 16, long[name].shape).astype(np.float32)
    counts = np.sort(noise.integers(0, 17, long["relative_count"].shape), -1)
    order = np.argsort(np.argsort(-long["relative_threshold"].values))
    for name in ("relative_count", "relative_lower", "relative_upper"):
        long[name] = long["relative_count"].dims, counts[..., order].astype(np.float32)
    long.attrs["stratum_sizes"] = [32]
    long["stratum"] = "head", np.zeros(32, np.int64)
    names = [f"model.layers.{index}.mixer" for index in range(64)]
    root = tree.to_dataset(inherit=False).isel(token=np.arange(128) % 40)
    root.attrs["mixers"] = names
    big = Profile(type(tree).from_dict({"/": root, **{f"/{name}": long for name in names}}))
    assert choose_extent([big]) == Extent(1, stride=1, head_stride=4, ladder_positions=48)
    # So much noise does not fit, nor does half of it.
    fitting = Extent(1, stride=2, head_stride=7, ladder_positions=12)
    assert choose_extent([big], 0.25) == fitting
    path = write_report([big], tmp_path / "big.html")
    assert path.stat().st_size < 1_700_000
    page = path.read_text(encoding="utf-8")
    assert "single heads at one position in 14," in page
    assert "singular values at 12 positions." in page
