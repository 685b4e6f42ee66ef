"""How much a page carries."""

import numpy as np
import pytest
import torch

from statesize.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report import data
from statesize.report.data import Extent, choose_extent, page_data


@pytest.fixture(scope="module")
def three():
    model = LanguageModel(ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=2, layers=1, key_size=2))
    return profile(model, torch.arange(30).reshape(3, 10) % 8)


# One mixer of two heads and ten positions: ten means and twenty head points a sequence.
@pytest.mark.parametrize(
    ("heads", "means", "expected"),
    [
        (200_000, 40_000, Extent(3, heads=True, stride=1)),
        (40, 40_000, Extent(2, heads=True, stride=1)),
        (200_000, 10, Extent(1, heads=True, stride=1)),
        (19, 40_000, Extent(1, heads=False, stride=1)),
        (19, 4, Extent(1, heads=False, stride=3)),
    ],
)
def test_extent_fits_its_budget(three, monkeypatch, heads, means, expected):
    monkeypatch.setattr(data, "HEAD_POINTS", heads)
    monkeypatch.setattr(data, "MEAN_POINTS", means)
    assert choose_extent([three]) == expected


def test_page_keeps_to_the_extent(three):
    page = page_data([three], Extent(2, heads=False, stride=3))
    layer = page["models"][0]["layers"][0]
    assert layer["positions"] == [0, 3, 6, 9]
    assert np.shape(layer["ess"]["entropy"]["mean"]) == (2, 4)
    assert "heads" not in layer["ess"]["entropy"]
    (text,) = page["texts"].values()
    assert len(text) == 2


def test_profiles_of_the_same_tokens_share_their_text(three):
    page = page_data([three, three], choose_extent([three]))
    assert len(page["texts"]) == 1
    assert len(page["models"]) == 2


def test_a_profile_without_relative_tolerances_has_no_such_curve(three):
    tree = three.to_xarray()
    bare = Profile(tree)
    tree["layers.0.mixer"] = tree["layers.0.mixer"].to_dataset().isel(relative_threshold=slice(0, 0))
    layer = page_data([bare], choose_extent([bare]))["models"][0]["layers"][0]
    assert list(layer["ess"]) == ["entropy"]
