"""What a page carries of heads, and how much: curves, counts at many tolerances, and numbers in few characters."""

import numpy as np
import pytest
import torch
from report.unpacking import unpacked

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report import head_map as extent
from statesize.report.head_map import Extent, clipped, head_map, packed
from statesize.report.page import metric_titles

METRICS = {"entropy": "Entropy-ESS", "relative_count": "Counts"}


@pytest.fixture(scope="module")
def three():
    model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    return profile(model, torch.arange(30).reshape(3, 10) % 8, relative_tolerances=(0.01,))


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


def test_there_and_back():
    values = np.random.default_rng(0).uniform(0, 37, (3, 50))
    values[1, 4] = np.nan
    assert unpacked(packed(values)) == pytest.approx(values.ravel(), abs=37 / 65534 / 2 + 1e-9, nan_ok=True)
    for few in ([], [0.0, 0.0], [np.nan]):
        assert unpacked(packed(np.array(few))) == pytest.approx(few, nan_ok=True)
