"""What a page carries of heads, and how much: curves, counts at many tolerances, and numbers in few characters."""

import numpy as np
import pytest
import torch
from report.unpacking import unpacked

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report import head_map as extent
from statesize.report.head_map import (
    Extent,
    choose_extent,
    clipped,
    head_map,
    packed,
)
from statesize.report.page import metric_titles
from statesize.report.page import page as report_page

METRICS = {"entropy": "Entropy-ESS", "relative_count": "Counts"}


@pytest.fixture(scope="module")
def three():
    model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    return profile(model, torch.arange(30).reshape(3, 10) % 8, relative_tolerances=(0.01,))


# One mixer of two heads at ten positions: thirty points a sequence.
@pytest.mark.parametrize(("points", "expected"), [(90, (3, 1)), (89, (2, 1)), (30, (1, 1)), (29, (1, 2)), (14, (1, 3))])
def test_extent_fits_its_budget(three, monkeypatch, points, expected):
    monkeypatch.setattr(extent, "POINTS", points)
    assert choose_extent([three]) == expected


def test_page_keeps_to_the_extent(three, monkeypatch):
    monkeypatch.setattr(extent, "choose_extent", lambda _: Extent(2, stride=3))
    page = head_map([three, three], METRICS).data
    layer = page["models"][0]["layers"][0]
    assert layer["positions"] == [0, 3, 6, 9]
    mixer = three.mixer(three.mixers[0])
    curves = layer["ess"]["entropy"]
    assert unpacked(curves["mean"]) == pytest.approx(mixer["entropy"].values[:2, :, ::3].mean(1).ravel(), abs=1e-3)
    assert unpacked(curves["heads"]) == pytest.approx(mixer["entropy"].values[:2, :, ::3].ravel(), abs=1e-3)
    (text,) = page["texts"].values()
    assert (len(text), len(page["models"])) == (2, 2)


def test_long_tokens_are_clipped():
    assert clipped("x" * 10_000) == f"{'x' * 60}… (10,000 signs)"


def test_a_profile_without_relative_tolerances_has_no_such_curve(three):
    tree = three.to_xarray()
    bare = Profile(tree)
    tree.attrs["relative_tolerances"] = []
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
    assert choose_extent([big]) == (1, 5)
    path = report_page([big]).write(tmp_path / "big.html")
    assert path.stat().st_size < 1_700_000
    assert "one position in " in path.read_text(encoding="utf-8")


def test_there_and_back():
    values = np.random.default_rng(0).uniform(0, 37, (3, 50))
    values[1, 4] = np.nan
    assert unpacked(packed(values)) == pytest.approx(values.ravel(), abs=37 / 65534 / 2 + 1e-9, nan_ok=True)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan]])
def test_nothing_and_zero(values):
    assert unpacked(packed(np.array(values))) == pytest.approx(values, nan_ok=True)
