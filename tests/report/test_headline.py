"""The sentence of facts above tables and pages."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from statesize.io.text import byte_count
from statesize.lab.cli.demo import _table
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report.compared import compared_models
from statesize.report.comparison import compare
from statesize.report.document import Shown
from statesize.report.names import by_reason, model_title, model_titles
from statesize.report.page import page as report_page
from statesize.report.words import contrast, headline, model_line, telling_layer

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
def test_two_models_by_their_bytes_and_their_ess_at_the_middle(profiles, metric):
    softmax, gated = compare(profiles).models
    # At the middle, a cache holds half of what it holds at the end.
    stored = softmax.state_bytes / 2 / gated.state_bytes
    carried = [at_the_middle(found, metric)[0] for found in profiles]
    said = headline(profiles, metric)
    ratio = re.search(r"carries (.*) numbers per channel", said.sentence)[1]
    expected = carried[0] / carried[1]
    assert ratio == ("about as many" if expected < 1.05 else f"{expected:.2g} × as many")
    assert said.sentence.startswith(
        f"Past token 12 of 24, softmax attention stores {stored:.2g} × the bytes of gated linear attention and "
    )
    of = [f"{one:.1f} numbers in" for one in carried]
    assert f": {of[0]} softmax attention against {of[1]} gated linear attention, as " in said.detail
    assert f"Stored there, keys of caches included: {byte_count(softmax.state_bytes / 2)} against 256 B." in said.detail


@pytest.mark.parametrize(("mixer", "against"), [("gla", "of the 2 that it holds"), ("sa", "of 2 tokens kept")])
def test_a_state_of_as_many_numbers_as_tokens_is_no_cache(mixer, against):
    # At the only cut that is measured both have a TSS of 2.
    found = small(mixer, mixer, positions=[2])
    assert f"past token 2 of 24, {against} (" in headline([found]).sentence
    assert found.summary()["state_utilisation"].notna().tolist() == [mixer == "gla"]


@pytest.mark.parametrize(
    ("cut", "kept"),
    [(5, "5 tokens kept (280 B"), (12, "12 tokens kept (672 B"), (16, "the 8 that can pass, with 16 tok")],
)
def test_tokens_kept_are_those_before_the_cut_that_is_named(cut, kept):
    assert f" past token {cut} of 24, of {kept}" in headline([small("sa", "sa", positions=[cut])]).sentence


def test_the_order_of_profiles_does_not_matter(profiles):
    assert headline(profiles) == headline(profiles[::-1])


def test_models_of_equal_memory():
    said = headline([small("la", "la"), small("gla", "gla")]).sentence
    assert re.fullmatch(
        r"Past token 12 of 24, (gated )?linear attention and (gated )?linear attention store the same number of bytes; "
        r"(gated )?linear attention carries (about|[\d.]+ ×) as many numbers per channel\.",
        said,
    )


def drawn(found, generator, bytes_apart):
    """A profile whose ESS, bytes and kind are drawn."""
    tree = found.to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    node["entropy"][:] *= generator.uniform(0.5, 2)
    node["state_bytes"][:] = np.round(1000 * generator.uniform(1, 1 + bytes_apart))
    node.attrs["kind"] = generator.choice(["la", "la", "la", "derivative"])
    tree["layers.0.mixer"] = node
    return Profile(tree)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed < 10 else pytest.mark.slow) for seed in range(30)]
)
def test_the_sentence_says_what_the_table_says(seed):
    generator = np.random.default_rng(seed)
    found = small("la", "LM")
    some = [drawn(found, generator, generator.choice([0, 0.04, 0.2, 3])) for _ in range(generator.integers(2, 5))]
    said = headline(some).sentence
    rows = {f"LM ({at})": row for at, row in enumerate(compare(some).models, 1)}
    middle = {f"LM ({at})": at_the_middle(one)[0] for at, one in enumerate(some, 1)}
    derived = {
        f"LM ({at})": one.mixer("layers.0.mixer").attrs["kind"] == "derivative" for at, one in enumerate(some, 1)
    }
    assert [f"{model_title(one)} ({at})" for at, one in enumerate(some, 1)] == model_titles(some)
    if said.count(" past token ") > 1:
        # Two of a kind would have been compared.
        assert sorted(derived.values()) == [False, True]
        for sentence, name in zip(re.findall(r"[^.]+\.\d[^.]*\.", said), rows, strict=False):
            assert f"{name} carries {middle[name]:.1f}" in sentence
        return
    names = re.findall(r"LM \(\d\)", said)
    first, second = (rows[name] for name in names[:2])
    assert derived[names[0]] == derived[names[1]] == ("per layer" in said)
    stored = max(first.state_bytes, second.state_bytes) / min(first.state_bytes, second.state_bytes)
    ratio = middle[names[0]] / middle[names[1]]
    carries = "about as many" if 1 / 1.05 < ratio < 1.05 else f"{ratio:.2g} × as many"
    assert f" carries {carries} numbers per " in said
    if stored < 1.05:
        about = "about " if stored != 1 else ""
        assert f"{names[0]} and {names[1]} store {about}the same number of bytes; {names[0]} carries" in said
        assert ratio >= 1
    else:
        assert f"{names[0]} stores {first.state_bytes / second.state_bytes:.2g} × the bytes of {names[1]} and" in said
        assert first.state_bytes > second.state_bytes
    # Swapped arguments say the same of the same profiles.
    turned = headline(some[::-1], titles=list(rows)[::-1]).sentence
    assert turned == said


def test_one_model_and_texts_that_differ(profiles):
    alone = headline(profiles[1:])
    (carried,) = at_the_middle(profiles[1])
    assert alone.sentence == (
        f"Gated linear attention carries {carried:.1f} numbers per channel past token 12 of 24, of the 2 that it holds "
        "(256 B in 1 layer)."
    )
    assert headline(profiles[:1]).sentence.endswith(" past token 12 of 24, of 12 tokens kept (672 B in 1 layer).")
    other = small("sa", "sa", IDS[:, :20])
    assert headline([other, profiles[1]]).sentence.endswith(alone.sentence)
    # Lines of each model say that beside the contrast.
    assert contrast([other, profiles[1]]).endswith("so these numbers do not compare.")
    assert contrast(profiles).endswith(f"\n{headline(profiles).sentence}")


def test_kinds_of_layers_of_one_model_are_compared_by_one_layer_of_each():
    held = small("la,sa,la,la", "mixed", layers=4)
    said = headline([held])
    rows = held.summary_rows()
    stored = rows[1]["state_bytes"] / 2 / rows[0]["state_bytes"]
    assert said.sentence.startswith(
        f"Past token 12 of 24, a layer of softmax attention stores {stored:.2g} × the bytes of one of linear "
    )
    values = at_the_middle(held)
    linear = np.mean([values[at] for at in (0, 2, 3)])
    softmax = f": {values[1]:.1f} numbers in softmax attention"
    assert f"{softmax} against {linear:.1f} numbers in linear attention, as " in said.detail
    assert "Stored by a layer there, keys of caches included:" in said.detail


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
    assert (said in headline([Profile(tree)]).detail) == told


def test_lines_name_the_layers_with_most_and_least():
    found = small("gla", "gla", layers=3)
    values = at_the_middle(found)
    most, least = int(np.argmax(values)), int(np.argmin(values))
    line = f" From {values[least]:.1f} in layer {least} to {values[most]:.1f} in layer {most}."
    assert model_line(found) == headline([found]).sentence + line


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
    assert headline([found]).sentence == model_line(found) == expected
    assert report_page([found]).finding.splitlines()[0] == expected
    assert repr(found).splitlines()[1] == expected
    # Nor where models stand side by side, in a comparison and in the demo.
    assert compare([found, found]).finding.count(" 33% (4.0 of 12 numbers per channel)") == 2
    assert _table(compared_models([found], {}, ()), [found], {found.model: 1.0}).rows[0][2:4] == [12, Shown(4.0, "4.0")]


@pytest.mark.parametrize(("other", "ends"), [(1.21, ""), (1.34, " From 1.2 in layer 0 to 1.3 in layer 1.")])
def test_layers_that_are_alike_as_printed_are_not_told_apart(other, ends):
    tree = small("gla", "gla", layers=2).to_xarray()
    for at, carried in enumerate((1.2, other)):
        node = tree[f"layers.{at}.mixer"].to_dataset(inherit=False)
        node["entropy"][:] = carried
        tree[f"layers.{at}.mixer"] = node
    found = Profile(tree)
    assert model_line(found) == headline([found]).sentence + ends


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
    assert headline([Profile(tree)]).sentence == "Nothing was measured that carries anything."
    assert model_line(Profile(tree)) == "Gated linear attention: nothing was measured."


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
