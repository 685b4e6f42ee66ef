"""Profiles of the bundled models side by side, against the numbers in the profiles themselves."""

import json
import math

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.profiling import Profile, profile
from statesize.report.comparison import compare
from statesize.report.page import page
from statesize.report.words import model_title
from statesize.results.summary import at_middle, ess_values, middle_ceiling
from statesize.texts.tokens import text_sequence

TEXTS = ("Return the list of names that are bound here.", "The loop ends when the iterator has no more items left.")


@pytest.fixture(scope="module")
def bundled():
    ids = torch.cat([text_sequence(zoo.tokenizer(), text) for text in TEXTS])
    return [
        profile(zoo.load(name)[0], [ids, ids.flip(0)], tokenizer=zoo.tokenizer(), name=name) for name in ("sa", "gla")
    ]


def _carried(node):
    return at_middle(node, ess_values(node, "entropy")).mean()


def test_figures_are_those_of_the_profiles(bundled):
    comparison = compare(bundled)
    assert [row["model"] for row in comparison.models] == ["softmax attention", "gated linear attention"]
    for row, given in zip(comparison.models, bundled, strict=True):
        nodes = [given.mixer(name) for name in given.mixers]
        carried, held = (np.mean([figure(node) for node in nodes]) for figure in (_carried, middle_ceiling))
        assert (row["ess"], row["ceiling"]) == (pytest.approx(carried), pytest.approx(held))
        # A share of a state and one of a cache never stand in one column.
        own, other = ("ceiling", "state") if given.model == "sa" else ("state", "ceiling")
        assert row[f"share_of_{own}"] == pytest.approx(carried / held)
        assert math.isnan(row[f"share_of_{other}"])
        summary, length = given.summary(), int(given.tokens["length"].values[0])
        assert row["state_bytes"] == summary["state_bytes"].sum()
        assert row["total_entropy"] == pytest.approx(summary["total_entropy"].sum())
        # Four layers of four heads of 32 value channels.
        assert row["average_entropy"] == pytest.approx(row["total_entropy"] / 512)
        for name in ("norm", "state_utilisation", "ceiling_utilisation"):
            assert row[name] == pytest.approx(summary[name].mean(), nan_ok=True)
        assert row["average_entropy_error"] == 0
    assert [row["tss"] for row in comparison.models] == [length - 1, 32]


def test_layers_count_by_their_channels():
    config = ModelConfig(mixer="gla,sa", vocabulary_size=32, width=16, heads=4, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    given = profile(model, [list(range(20))])
    (row,) = compare([given]).models
    assert row["tss"] == (3 + 19) / 2
    # A profile of a layer with more channels: the same tree with its heads counted twice.
    tree = given.to_xarray()
    tree["layers.1.mixer"].attrs["multiplicity"] = 12
    (row,) = compare([Profile(tree)]).models
    assert row["tss"] == (3 + 3 * 19) / 4
    first, second = given.summary()["average_entropy"]
    assert row["average_entropy"] == pytest.approx((first + 3 * second) / 4)


def test_the_error_of_the_average_is_that_of_the_layers_that_it_is_of():
    model, tokenizer = zoo.load("gla")
    tree = profile(model, TEXTS, tokenizer=tokenizer, channels=3).to_xarray()
    tree[tree.attrs["mixers"][0]].attrs["kind"] = "derivative"
    hybrid = Profile(tree)
    (row,), summary = compare([hybrid]).models, hybrid.summary()[1:]
    assert row["average_entropy"] == pytest.approx(summary["average_entropy"].mean())
    assert row["average_entropy_error"] == pytest.approx(summary["average_entropy_error"].mean())


def test_what_does_not_compare_is_said(bundled):
    model, tokenizer = zoo.load("la")
    settings = Settings(positions=3, relative_tolerances=(0.1,))
    other = profile(model, TEXTS[0], tokenizer=tokenizer, name="la", settings=settings)
    notes = " ".join(compare([*bundled, other]).notes)
    assert "different positions (3, default)" in notes
    assert "relative tolerances differ" in notes


def test_nothing_to_compare(bundled):
    tree = bundled[0].to_xarray()
    tree.attrs["mixers"] = []
    for profiles in (["gla-p"], [], [bundled[1], Profile(tree)]):
        with pytest.raises(InputError):
            compare(profiles)


def test_two_profiles_of_one_model_are_told_apart(bundled):
    twice = [bundled[1]] * 2
    names = [f"{model_title(bundled[1])} ({number})" for number in (1, 2)]
    assert list(compare(twice).summary()["model"]) == names
    # A chart adds up what stands under one name.
    made = page(twice)
    drawn = {chart.title: json.dumps(chart.data, default=str) for chart in made.charts}
    assert [name in data for data in drawn.values() for name in names] == [True] * 2 * len(drawn)
    assert all(name in made.title for name in names)
