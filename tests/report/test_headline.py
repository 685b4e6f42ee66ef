"""The sentence of facts above tables and pages."""

import re

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model
from torch import nn

from statesize.io.text import byte_count
from statesize.lab.cli.demo import _table
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.profiling import Profile, profile
from statesize.report.compared import compared_models
from statesize.report.comparison import compare
from statesize.report.document import Shown
from statesize.report.names import by_reason, model_title
from statesize.report.page import page as report_page
from statesize.report.words import contrast, headline, model_line, reading, telling_layer

IDS = torch.arange(24)[None] % 8


def small(mixer, name, ids=IDS, layers=1, positions=None):
    shape = ModelConfig(mixer=mixer, vocabulary_size=8, width=8, heads=2, layers=layers, key_size=2)
    return profile(LanguageModel(shape, torch.Generator().manual_seed(0)), ids, name=name, positions=positions)


@pytest.fixture(scope="module")
def profiles():
    return [small(name, name) for name in ("sa", "gla")]


def at_the_middle(found, metric="entropy"):
    """ESS of each layer past token 12 of 24, the mean over heads."""
    nodes = [found.mixer(name) for name in found.mixers]
    values = [node[metric].values if metric == "entropy" else node[metric].values[..., 0] for node in nodes]
    return [value[0, :, 12].mean() for value in values]


@pytest.mark.parametrize("metric", ["entropy", "relative_count"])
def test_each_model_has_a_sentence_with_its_ess_at_the_middle_and_its_bytes(profiles, metric):
    carried, models = [at_the_middle(found, metric)[0] for found in profiles], compare(profiles).models
    # At the middle, a cache holds half of what it holds at the end.
    stored = models[0].state_bytes / 2, models[1].state_bytes
    assert headline(profiles, metric) == " ".join(
        f"{title} carries {ess:.1f} numbers per channel past token 12 of 24, {of} ({byte_count(held)} in 1 layer)."
        for title, ess, of, held in zip(
            ("Softmax attention", "Gated linear attention"),
            carried,
            ("of 12 tokens kept", "of the 2 that it holds"),
            stored,
            strict=True,
        )
    )


def test_bytes_are_of_as_many_tokens_as_are_kept_on_average_over_texts():
    model = ModelConfig(mixer="sa", vocabulary_size=16, width=8, heads=2, layers=1, key_size=2)
    found = profile(LanguageModel(model), [torch.arange(length) % 16 for length in (40, 16, 16)])
    each = profile(LanguageModel(model), torch.arange(24)[None] % 16)
    assert "of 12 tokens kept" in headline([found])
    # A text that is too short for the windows has no middle.
    windows = profile(
        LanguageModel(model), [torch.arange(length) % 16 for length in (24, 10)], settings=Settings(past=8, future=8)
    )
    assert compare([windows]).models[0].middle_bytes == pytest.approx(compare([each]).models[0].middle_bytes)
    # The three texts keep 20, 8 and 8 tokens at their middle.
    assert compare([found]).models[0].middle_bytes == pytest.approx(compare([each]).models[0].middle_bytes)


@pytest.mark.parametrize(("mixer", "against"), [("gla", "of the 2 that it holds"), ("sa", "of 2 tokens kept")])
def test_a_state_of_as_many_numbers_as_tokens_is_no_cache(mixer, against):
    # At the only cut that is measured both have a TSS of 2.
    found = small(mixer, mixer, positions=[2])
    assert f"past token 2 of 24, {against} (" in headline([found])
    assert found.summary()["state_utilisation"].notna().tolist() == [mixer == "gla"]


@pytest.mark.parametrize(
    ("cut", "kept"),
    [(5, "5 tokens kept (280 B"), (12, "12 tokens kept (672 B"), (16, "the 8 that can pass, with 16 tok")],
)
def test_tokens_kept_are_those_before_the_cut_that_is_named(cut, kept):
    assert f" past token {cut} of 24, of {kept}" in headline([small("sa", "sa", positions=[cut])])


def test_the_order_of_profiles_does_not_matter(profiles):
    assert contrast(profiles) == contrast(profiles[::-1])


def test_one_model_and_texts_that_differ(profiles):
    alone = headline(profiles[1:])
    (carried,) = at_the_middle(profiles[1])
    assert alone == (
        f"Gated linear attention carries {carried:.1f} numbers per channel past token 12 of 24, of the 2 that it holds "
        "(256 B in 1 layer)."
    )
    assert headline(profiles[:1]).endswith(" past token 12 of 24, of 12 tokens kept (672 B in 1 layer).")
    other = small("sa", "sa", IDS[:, :20])
    assert headline([other, profiles[1]]).endswith(alone)
    assert contrast([other, profiles[1]]).endswith("only numbers of those that did compare.")


def test_each_kind_of_layers_of_one_model_has_a_sentence():
    held = small("la,sa,la,la", "mixed", layers=4)
    values = at_the_middle(held)
    linear, softmax = re.findall(r"(\w+ attention) carries ([\d.]+) .*? in (\d) layers?\)\.", headline([held]))
    assert linear == ("Linear attention", f"{np.mean([values[at] for at in (0, 2, 3)]):.1f}", "3")
    assert softmax == ("Softmax attention", f"{values[1]:.1f}", "1")


@pytest.mark.parametrize(
    ("kind", "size", "told"),
    [("sliding attention", 99, True), ("sliding attention", 7, False), ("attention", 99, False)],
)
def test_a_window_that_is_longer_than_the_text_is_told(kind, size, told):
    tree = small("sa,la", "mixed", layers=2).to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    node.attrs["kind"] = kind
    node["state_size"][:] = np.minimum(node["state_size"], size)
    tree["layers.0.mixer"] = node
    said = "The window of sliding attention is longer than the text: it does not act."
    assert (said in reading([Profile(tree)])) == told


def test_lines_name_the_layers_with_most_and_least():
    found = small("gla", "gla", layers=3)
    values = at_the_middle(found)
    most, least = int(np.argmax(values)), int(np.argmin(values))
    line = f" From {values[least]:.1f} in layer {least} to {values[most]:.1f} in layer {most}."
    assert model_line(found) == headline([found]) + line


def test_a_mean_over_cuts_never_stands_against_a_ceiling():
    tree = small("sa", "sa").to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    node["entropy"][:], node["sinkless_entropy"][:] = 1, np.nan
    node["entropy"][..., node["position"].values == 12] = 4
    tree["layers.0.mixer"] = node
    found = Profile(tree)
    expected = (
        "Softmax attention carries 4.0 numbers per channel past token 12 of 24, of 12 tokens kept (672 B in 1 layer)."
    )
    assert headline([found]) == model_line(found) == expected
    assert report_page([found]).finding.splitlines()[0] == expected
    assert repr(found).splitlines()[1] == expected
    # Nor where models stand side by side, in a comparison and in the demo.
    assert compare([found, found]).finding.count(" 33% (4.0 of 12 numbers per channel in caches)") == 2
    assert _table(compared_models([found]), [found], {found.model: 1.0}).rows[0][2:4] == [12, Shown(4.0, "4.0")]


@pytest.mark.parametrize(("other", "ends"), [(1.21, ""), (1.34, " From 1.2 in layer 0 to 1.3 in layer 1.")])
def test_layers_that_are_alike_as_printed_are_not_told_apart(other, ends):
    tree = small("gla", "gla", layers=2).to_xarray()
    for at, carried in enumerate((1.2, other)):
        node = tree[f"layers.{at}.mixer"].to_dataset(inherit=False)
        node["entropy"][:] = carried
        tree[f"layers.{at}.mixer"] = node
    found = Profile(tree)
    assert model_line(found) == headline([found]) + ends


def test_sinks_that_hide_the_rest_are_told_with_the_layers_that_lead_without_them():
    tree = small("sa", "sa", layers=2).to_xarray()
    for at, (carried, without) in enumerate([(2, 9), (4, 5)]):
        node = tree[f"layers.{at}.mixer"].to_dataset(inherit=False)
        node["entropy"][:], node["sinkless_entropy"][:], node["sink_share"][:] = carried, without, 0.5
        tree[f"layers.{at}.mixer"] = node
    assert model_line(Profile(tree)) == (
        "Softmax attention carries 3.0 numbers per channel past token 12 of 24 (7.0 without attention sinks), of 12 "
        "tokens kept (1.3 kB in 2 layers). Without sinks from 5.0 in layer 1 to 9.0 in layer 0."
    )


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
    assert headline([Profile(tree)]) == model_line(Profile(tree))
    assert model_line(Profile(tree)) == "Gated linear attention: nothing was measured."


def test_a_cut_that_nothing_passes_is_told_though_others_are_passed():
    """Such as the border of a chunk, or of one of several texts in a row."""
    inputs = {"input_ids": IDS, "position_ids": torch.arange(12).repeat(1, 2)}
    found = profile(attention_model("llama"), inputs)
    assert found.summary()["average_entropy"].min() > 1
    assert headline([found]) == "LlamaForCausalLM carries nothing past token 12 of 24."
    assert model_line(found) == headline([found])


def test_only_a_name_that_stands_for_its_mixers_is_written_in_full(profiles):
    assert [model_title(one) for one in profiles] == ["softmax attention", "gated linear attention"]
    assert model_title(small("gla", "la")) == "la"


def test_what_was_left_out_is_listed_by_its_reason():
    skipped = {f"layers.{index}.attn#shared": "it needs 9MB" for index in range(5)} | {"layers.7": "it is no mixer"}
    assert by_reason(skipped) == {
        "layers.0.attn, layers.1.attn, layers.2.attn and 2 more": "it needs 9MB",
        "layers.7": "it is no mixer",
    }


class Shift(nn.Module):
    """The token before is mixed in."""

    def forward(self, value):
        return value + 0.5 * nn.functional.pad(value, (0, 0, 1, -1))


class ShiftedAttention(nn.Module):
    """Linear attention of values that a module of its own mixes before, and no T holds both."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, size) for size in (4, 4, 8))
        self.shift = Shift()

    def forward(self, hidden):
        scores = (self.query(hidden) @ self.key(hidden).mT).tril()
        return scores @ torch.tanh(self.value(self.shift(hidden)))


def test_a_part_that_holds_less_is_left_out_of_means():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 8), ShiftedAttention())
    measured = profile(model, torch.randint(0, 64, (1, 48)), name="own")
    whole, part = measured.summary_rows()
    assert (whole["layer"], whole["tss"], part["layer"], part["tss"]) == ("1", 4, "1.shift", 1)
    assert "of the 4 that it holds" in str(measured)
    assert "it is a part of a layer that holds more: 1.shift" in str(measured)
    assert compare([measured]).models[0].average_entropy == pytest.approx(whole["average_entropy"])
