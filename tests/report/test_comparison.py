"""Profiles of the bundled models side by side, against the numbers in the profiles themselves."""

import json
import math
import re

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.io.text import byte_count
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.profiling import Profile, profile
from statesize.report import write_report
from statesize.report.charts import layers
from statesize.report.comparison import compare
from statesize.report.names import model_title
from statesize.report.page import page
from statesize.report.tables import layer_rows
from statesize.report.words import contrast
from statesize.results.fields import FIGURES, MAIN_COLUMNS
from statesize.results.summary import middle_bounds, middle_bytes, middle_ceiling
from statesize.texts.tokens import join_documents

TEXTS = ("Return the list of names that are bound here.", "The loop ends when the iterator has no more items left.")


@pytest.fixture(scope="module")
def bundled():
    ids = join_documents(zoo.tokenizer(), TEXTS)
    return [
        profile(zoo.load(name)[0], [ids, ids.flip(0)], tokenizer=zoo.tokenizer(), name=name) for name in ("sa", "gla")
    ]


def test_figures_are_those_of_the_profiles(bundled):
    comparison = compare(bundled)
    assert comparison.notes == ()
    finding, heading, *rows, following = repr(comparison).splitlines()
    assert finding == comparison.finding
    headings = ("Model", "ESS, entropy", "Ceiling", "Share of state", "Share of ceiling")
    assert heading.split() == " ".join((*headings, "Bytes")).split()
    assert [row.split()[0] for row in rows] == ["softmax", "gated"]
    assert following.startswith("next: ")
    assert [model.model for model in comparison.models] == ["sa", "gla"]
    for row, line, given in zip(comparison.models, rows, bundled, strict=True):
        nodes = [given.mixer(name) for name in given.mixers]
        carried, held = (np.mean([figure(node) for node in nodes]) for figure in (_carried, middle_ceiling))
        stored = sum(middle_bytes(node, given.tokens["length"].values) for node in nodes)
        shares = [f"{carried / held:.0%}", "-"] if row.model == "gla" else ["-", f"{carried / held:.0%}"]
        assert line.endswith(f" {byte_count(stored)}")
        assert line.split()[-6:-2] == [f"{carried:.1f}", f"{held:.0f}", *shares]
        assert f"{carried:.1f} of {held:.0f} numbers" in finding or f"carries {carried:.1f}" in finding
        # A share of a state and one of a cache never stand in one column.
        own, other = ("ceiling", "state") if row.model == "sa" else ("state", "ceiling")
        assert getattr(row, f"middle_{own}_utilisation") == pytest.approx(carried / held)
        assert math.isnan(getattr(row, f"middle_{other}_utilisation"))
        summary = given.summary(wide=True)
        length = int(given.tokens["length"].values[0])
        # Four layers of four heads of 32 value channels.
        assert (row.mixers, row.channels, row.sequences, row.tokens) == (4, 512, 2, 2 * length)
        assert row.state_bytes == summary["state_bytes"].sum()
        assert row.total_entropy == pytest.approx(summary["total_entropy"].sum())
        assert row.total_relative_count == pytest.approx(summary["total_relative_count"].sum())
        assert row.average_entropy == pytest.approx(row.total_entropy / 512)
        for name in ("state_utilisation", "ceiling_utilisation"):
            assert getattr(row, name) == pytest.approx(summary[name].mean(), nan_ok=True)
        assert row.norm == pytest.approx(summary["norm"].mean())
        assert row.average_entropy_error == 0
        assert row.total_tss == 512 * row.tss
    assert [row.tss for row in comparison.models] == [length - 1, 32]


def test_layers_count_by_their_channels():
    config = ModelConfig(mixer="gla,sa", vocabulary_size=32, width=16, heads=4, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    given = profile(model, [list(range(20))])
    (row,) = compare([given]).models
    assert row.tss == (3 + 19) / 2
    # A profile of a layer with more channels: the same tree with its heads counted twice.
    tree = given.to_xarray()
    tree["layers.1.mixer"].attrs["multiplicity"] = 12
    (row,) = compare([Profile(tree)]).models
    assert row.channels == 4 * 4 + 4 * 12
    assert row.tss == (3 + 3 * 19) / 4
    first, second = given.summary(wide=True)["average_entropy"]
    assert row.average_entropy == pytest.approx((first + 3 * second) / 4)


def test_the_error_of_samples(bundled):
    model, tokenizer = zoo.load("gla")
    sampled = profile(model, TEXTS, tokenizer=tokenizer, channels=3)
    (row,) = compare([sampled]).models
    summary = sampled.summary(wide=True)
    assert row.total_entropy_error == pytest.approx(np.sqrt((summary["total_entropy_error"] ** 2).sum()))
    assert row.average_entropy_error == pytest.approx(row.total_entropy_error / 512)


def test_the_error_of_the_average_is_that_of_the_layers_that_it_is_of():
    model, tokenizer = zoo.load("gla")
    tree = profile(model, TEXTS, tokenizer=tokenizer, channels=3).to_xarray()
    tree[tree.attrs["mixers"][0]].attrs["kind"] = "derivative"
    hybrid = Profile(tree)
    (row,), summary = compare([hybrid]).models, hybrid.summary(wide=True)[1:]
    assert row.average_entropy == pytest.approx(summary["average_entropy"].mean())
    assert row.average_entropy_error == pytest.approx(np.sqrt((summary["average_entropy_error"] ** 2).sum()) / 3)


@pytest.mark.parametrize("name", ["gla", "sa"])
@pytest.mark.parametrize("positions", [8, 16])
def test_the_error_of_cuts_that_are_left_out_adds_up_over_layers(name, positions):
    text = zoo.documents()[0][:1500]
    every, some = (compare([profile(name, text, positions=cuts)]).models[0] for cuts in (None, positions))
    for figure in ("average_entropy", "total_entropy"):
        error = getattr(some, f"{figure}_error")
        assert abs(getattr(some, figure) - getattr(every, figure)) <= error < 0.5 * getattr(every, figure)


def test_what_does_not_compare_is_said(bundled):
    model, tokenizer = zoo.load("la")
    settings = Settings(positions=3, relative_tolerances=(0.1,))
    other = profile(model, TEXTS[0], tokenizer=tokenizer, name="la", settings=settings)
    notes = " ".join(compare([*bundled, other]).notes)
    for part in (
        "not of the same tokens",
        "different positions (3, default)",
        "relative tolerances differ",
    ):
        assert part in notes


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("ends", "only_ends"),
    [
        ([[7, 0], [7]], True),
        ([[7, 9], [5, 0]], True),
        ([[7, 9], [5, 6, 0]], False),
        ([[3, 4, 7, 9], [5, 6, 7, 9]], False),
        ([[7], [7, 1, 2, 3, 4]], False),
    ],
)
def test_a_file_and_its_string_are_told_from_other_texts(ends, only_ends):
    model, tokenizer = zoo.load("gla")
    read = [profile(model, torch.tensor([10, 11, 12, 13, *end]), tokenizer=tokenizer, name="gla") for end in ends]
    (note,) = compare(read).notes
    assert note.startswith("The profiles are of the same texts but for the last tokens: ") == only_ends
    assert note.startswith("The profiles are not of the same tokens: ") != only_ends


def test_other_numbers_of_sequences_are_other_texts(bundled):
    model, tokenizer = zoo.load("gla")
    read = [torch.arange(10, 20), torch.arange(10, 20).repeat(2, 1)]
    first, second = (profile(model, ids, tokenizer=tokenizer, name="gla") for ids in read)
    assert "not of the same tokens" in " ".join(compare([first, second]).notes)


def test_a_share_is_of_ess_without_sinks_as_in_a_profile(bundled):
    tree = bundled[0].to_xarray()
    for name in bundled[0].mixers:
        node = tree[name].to_dataset(inherit=False)
        node["entropy"][:], node["sinkless_entropy"][:], node["sink_share"][:] = 2, 6.5, 0.5
        tree[name] = node
    sinks = Profile(tree)
    compared = compare([sinks, bundled[1]])
    first, second = compared.models
    assert (first.middle_entropy, first.sinkless_entropy, first.middle_ceiling) == (2, 6.5, 13)
    assert second.sinkless_entropy == second.middle_entropy
    assert first.middle_ceiling_utilisation == 0.5
    assert {row.used for row in layer_rows(sinks, "entropy")} == {0.5}
    assert compared.to_dataframe()["sinkless_entropy"][0] == 6.5
    assert "The same without sinks" in repr(compared)
    assert "The same without sinks" not in repr(compare(bundled))
    assert "sinkless_entropy" not in compare(bundled).to_dataframe()
    assert "Softmax attention carries 6.5 of 13 numbers per channel without sinks in caches " in compared.finding
    assert "sinks" not in contrast(bundled)
    # Bars are what the table orders layers by.
    drawn = layers([sinks]).to_dict()
    assert {row["middle"] for row in drawn["datasets"]["layers"]} == {6.5}
    assert drawn["layer"][0]["encoding"]["y"]["title"].endswith("without sinks)")
    assert not layers(bundled).to_dict()["layer"][0]["encoding"]["y"]["title"].endswith("without sinks)")


def test_which_models_read_the_same_tokens_is_said(bundled):
    other = profile(zoo.load("la")[0], TEXTS[1], tokenizer=zoo.tokenizer(), name="la")
    compared = compare([*bundled, other])
    assert compared.finding.endswith("up to the same cut: only numbers of those that did compare.")
    said = "softmax attention and gated linear attention"
    assert compared.notes[0].endswith(f" The same tokens were read by {said}.")
    compared = compare([*bundled, other, other])
    assert compared.notes[0].endswith(f" {said}; linear attention (3) and linear attention (4).")
    assert "were read by" not in compare([bundled[0], other]).notes[0]


def test_table(bundled):
    compared = compare(bundled)
    table = compared.to_dataframe()
    assert len(table.columns) <= len(MAIN_COLUMNS)
    assert set(FIGURES) < set(compared.to_dataframe(wide=True).columns)


def test_the_page_is_that_of_the_profiles(bundled, tmp_path):
    compared = compare(bundled)
    drawn = compared.to_html(tmp_path / "compared.html")
    assert drawn.read_bytes() == write_report(bundled, tmp_path / "same.html").read_bytes()
    assert repr(compared).endswith("\nnext: .to_dataframe(), .to_html()")


def test_nothing_to_compare(bundled):
    with pytest.raises(InputError, match=r"must be a list of Profiles, got \['gla-p'\]\..* with ss\.Profile\.load\."):
        compare(["gla-p"])
    assert compare(bundled[:1]).notes == ("A comparison takes two profiles or more, and this is one.",)
    with pytest.raises(InputError, match="profiles must hold at least one"):
        compare([])

    tree = bundled[0].to_xarray()
    tree.attrs["mixers"] = []
    with pytest.raises(InputError, match="The profile of sa holds no mixer"):
        compare([bundled[1], Profile(tree)])


def test_what_was_skipped_is_said(bundled):
    tree = bundled[0].to_xarray()
    tree.attrs |= {
        "model": "half",
        "skipped": {"layers.9": {"code": "not measured", "detail": "no mixing of positions was seen in it"}},
    }
    (note,) = compare([bundled[0], Profile(tree)]).notes
    assert note.startswith("Not all layers were measured as a whole of half;")


def test_the_first_sentence_says_which_uses_more_of_what_it_can_hold(bundled):
    ids = join_documents(zoo.tokenizer(), TEXTS)
    both = [bundled[1], profile(zoo.load("la")[0], [ids, ids.flip(0)], tokenizer=zoo.tokenizer(), name="la")]
    shares, names = [], []
    for one in both:
        nodes = [one.mixer(name) for name in one.mixers]
        carried, held = (np.mean([figure(node) for node in nodes]) for figure in (_carried, middle_ceiling))
        shares.append(carried / held)
        names.append(model_title(one))
    more = int(np.argmax(shares))
    finding = compare(both).finding
    assert finding.startswith(f"Among states, {names[more]} uses more of what it can hold past token 13 of 26: ")
    for name, share in zip(names, shares, strict=True):
        assert f"{name} {share:.0%} (" in finding
    assert "[" not in finding
    assert "no verdict on a model" in finding
    # A cache is told apart from states, which alone are ranked.
    softmax, gated = (f"{np.mean([_carried(one.mixer(name)) for name in one.mixers]):.1f}" for one in bundled)
    cache = f"Softmax attention carries {softmax} of 13 numbers per channel in caches past token 13 of 26."
    apart = "Do not compare shares of states with shares of caches, which grow with the text. This is of 2 texts"
    assert compare(bundled).finding.startswith(
        f"Gated linear attention carries {gated} of 13 numbers per channel in states past token 13 of 26. {cache} "
        f"{apart}"
    )
    finding = compare([bundled[0], *both]).finding
    assert finding.startswith(f"Among states, {names[more]} uses more of what it can hold past token 13 of 26: ")
    assert f". {cache} {apart}" in finding
    assert (
        ". Among caches, both use about as much of what they can hold"
        in compare([bundled[0], *both, bundled[0]]).finding
    )
    assert compare(both[:1]).finding == ""
    assert compare([both[0], both[0]]).finding.startswith("Among states, both use about as much of what they can hold")


def test_a_hybrid_model_ranks_neither_among_states_nor_among_caches(bundled):
    tree = bundled[1].to_xarray()
    first = bundled[0].mixers[0]
    tree["cached"] = bundled[0].to_xarray()[first]
    tree.attrs |= {"model": "hybrid", "mixers": [*bundled[1].mixers, "cached"]}
    hybrid = Profile(tree)
    state, cache = (
        np.mean([_carried(one.mixer(name)) for name in names])
        for one, names in ((bundled[1], bundled[1].mixers), (bundled[0], [first]))
    )
    told = f"carries {state:.1f} of 13 numbers per channel in states and {cache:.1f} of 13 in caches"
    for others in ([bundled[0]], [bundled[1]], bundled, [hybrid]):
        finding = compare([*others, hybrid]).finding
        assert told in finding
        assert "%" not in finding.partition("This is of")[0]
        assert "Do not compare shares of states" in finding


def test_two_profiles_of_one_model_are_told_apart(bundled):
    twice = [bundled[1]] * 2
    names = [f"{model_title(bundled[1])} ({number})" for number in (1, 2)]
    assert list(compare(twice).to_dataframe()["model"]) == names
    # A chart adds up what stands under one name.
    made = page(twice)
    drawn = {chart.title: json.dumps(chart.data, default=str) for chart in made.charts}
    assert [name in data for data in drawn.values() for name in names] == [True] * 2 * len(drawn)
    assert all(name in made.title for name in names)


def _carried(node):
    return np.mean(middle_bounds(node, "entropy"))


@pytest.mark.parametrize("changed", ["other text", "other length"])
def test_shares_of_other_texts_or_cuts_name_no_winner(changed):
    shape = {"vocabulary_size": 8, "width": 8, "heads": 2, "layers": 1, "key_size": 2}
    texts = torch.randint(0, 8, (2, 24), generator=torch.Generator().manual_seed(0))
    others = texts.flip(0) if changed == "other text" else texts[:, :16]
    models = [
        LanguageModel(ModelConfig(mixer=name, **shape), torch.Generator().manual_seed(0)) for name in ("la", "gla")
    ]
    given = zip(models, (texts, others), ("la", "gla"), strict=True)
    measured = [profile(model, ids, name=name) for model, ids, name in given]
    finding = compare(measured).finding
    assert re.match(
        r"Linear attention carries [\d.]+ of 2 numbers per channel in states past token 12 of 24\. ", finding
    )
    assert finding.endswith("only numbers of those that did compare.")
    assert "uses" not in finding
    assert "%" not in finding
    assert ("past token 8 of 16." in finding) == (changed == "other length")
    assert compare([measured[0].called("smol.gguf"), measured[1]]).finding.startswith("smol.gguf carries ")


def test_shares_over_texts_have_intervals():
    shape = {"vocabulary_size": 8, "width": 8, "heads": 2, "layers": 1, "key_size": 2}
    texts = torch.randint(0, 8, (6, 24), generator=torch.Generator().manual_seed(0))
    models = [
        LanguageModel(ModelConfig(mixer=name, **shape), torch.Generator().manual_seed(0)) for name in ("la", "gla")
    ]
    finding = compare(
        [profile(model, texts, name=name) for model, name in zip(models, ("la", "gla"), strict=True)]
    ).finding
    assert finding.count("%, ") >= 2
    assert "6 texts" in finding
    model = LanguageModel(ModelConfig(mixer="sa", **shape), torch.Generator().manual_seed(0))
    tree = profile(model, texts, name="sa").to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    node["sinkless_entropy"][:] = 6
    tree["layers.0.mixer"] = node
    # Without sinks all texts have one share.
    assert re.search(r" 50% \[50%, 50%\] \(6\.0 of 12", compare([Profile(tree)] * 2).finding)


def test_the_interval_of_a_share_is_that_of_its_own_ratio():
    # The long text carries another share than the others: the mean of shares is another number.
    texts = [torch.arange(length) % 8 for length in (12, 13, 14, 13, 12, 14, 200)]
    model = LanguageModel(ModelConfig(mixer="sa", vocabulary_size=8, width=8, heads=2, layers=2, key_size=4))
    finding = compare([profile(model, texts, name=name) for name in ("one", "other")]).finding
    share, low, high = map(int, re.search(r"(\d+)% \[(\d+)%, (\d+)%\]", finding).groups())
    assert low < share < high


def test_a_model_of_unknown_size_has_no_share_of_what_the_text_allows(bundled):
    tree = bundled[1].to_xarray()
    for name in bundled[1].mixers:
        tree[name]["state_size"].values[:] = tree[name]["tss"].values[:] = np.nan
    unknown = Profile(tree)
    result = compare([unknown, bundled[1]])
    assert "%" not in result.finding
    assert "gla has no share: the state size of 4 layers is unknown." in result.notes
    assert [np.isnan(model.middle_state_utilisation) for model in result.models] == [True, False]
