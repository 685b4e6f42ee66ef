"""The sentence of facts above tables and pages."""

import re

import numpy as np
import pytest
import torch

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report.comparison import compare
from statesize.report.words import headline, model_line, model_title, telling_layer

IDS = torch.arange(24)[None] % 8


def small(mixer, name, ids=IDS, layers=1):
    shape = ModelConfig(mixer=mixer, vocabulary_size=8, width=8, heads=2, layers=layers, key_size=2)
    return profile(LanguageModel(shape, torch.Generator().manual_seed(0)), ids, name=name)


@pytest.fixture(scope="module")
def profiles():
    return [small(name, name) for name in ("sa", "gla")]


@pytest.mark.parametrize("metric", ["entropy", "relative_count"])
def test_two_models_by_their_totals(profiles, metric):
    softmax, gated = compare(profiles).models
    kept = softmax.total_tss / gated.total_tss
    carried = getattr(softmax, f"total_{metric}") / getattr(gated, f"total_{metric}")
    said = headline(profiles, metric)
    ratios = [float(ratio) for ratio in re.findall(r"([\d.]+) ×", said.sentence)]
    assert ratios == pytest.approx([kept, carried], rel=0.05)
    assert said.sentence.startswith("Softmax attention keeps ")
    assert "the memory of gated linear attention and carries" in said.sentence
    assert f"{softmax.total_tss:,.0f} against {gated.total_tss:,.0f}" in said.detail
    # Eight channels: of the cache min(i, L − i), of the state at most its two numbers.
    cuts = np.arange(1, IDS.shape[1])
    least = np.minimum(cuts, IDS.shape[1] - cuts)
    possible = f"of {8 * least.mean():,.0f} against {8 * np.minimum(least, 2).mean():,.0f} that were possible"
    assert possible in said.detail


def test_the_order_of_profiles_does_not_matter(profiles):
    assert headline(profiles) == headline(profiles[::-1])


def test_models_of_equal_memory():
    said = headline([small("la", "la"), small("gla", "gla")]).sentence
    assert re.fullmatch(
        r"(Linear|Gated linear) attention and (gated )?linear attention keep the same memory, and the first carries "
        r"(about as much|[\d.]+ × as much)\.",
        said,
    )


def test_one_model_and_texts_that_differ(profiles):
    alone = headline(profiles[1:])
    (row,) = profiles[1].summary_rows()
    assert alone.sentence == (
        f"Gated linear attention keeps 2 numbers per channel by the end of the text and carries "
        f"{row['average_entropy']:.1f} of them on average."
    )
    other = small("sa", "sa", IDS[:, :20])
    assert headline([other, profiles[1]]).sentence.endswith(alone.sentence)


def test_kinds_of_layers_of_one_model():
    said = headline([small("la,sa", "mixed", layers=2)]).sentence
    assert said.startswith("Softmax attention of mixed keeps ")
    assert "the memory of linear attention of mixed" in said


def test_lines_name_the_layers_with_most_and_least():
    found = small("gla", "gla", layers=3)
    values = [row["average_entropy"] for row in found.summary_rows()]
    most, least = int(np.argmax(values)), int(np.argmin(values))
    line = f"from {values[least]:.1f} in layer {least} to {values[most]:.1f} in layer {most}."
    carried = f"Gated linear attention carries {np.mean(values):.1f} numbers per channel on average, "
    assert model_line(found) == carried + line


def test_the_layer_that_changes_most_is_told_first():
    found = small("gla", "gla", layers=3)
    tree = found.to_xarray()
    node = tree["layers.1.mixer"].to_dataset(inherit=False)
    node["entropy"][:, :, 8:12] *= 0.2
    tree["layers.1.mixer"] = node
    assert telling_layer(Profile(tree)) == 1


def test_nothing_measured(profiles):
    tree = profiles[1].to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    node["entropy"][:] = np.nan
    tree["layers.0.mixer"] = node
    assert headline([Profile(tree)]).sentence == "Nothing was measured that carries anything."
    assert model_line(Profile(tree)) == "Gated linear attention: nothing was measured."


def test_only_a_name_that_stands_for_its_mixers_is_written_in_full(profiles):
    assert [model_title(one) for one in profiles] == ["softmax attention", "gated linear attention"]
    assert model_title(small("gla", "la")) == "la"
