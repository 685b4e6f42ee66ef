"""The headline: one sentence with ESS at one cut, of what is kept there, and what lacks a number."""

import re

import numpy as np
import pytest
import torch

from statesize.codes import Code, Note
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.profiling import Profile, profile
from statesize.report.comparison import compare
from statesize.report.model_rows import model_row
from statesize.report.words import headline, middle_cut

IDS = torch.arange(24)[None] % 8


def small(mixer, ids=IDS, layers=1, positions=None):
    shape = ModelConfig(mixer=mixer, vocabulary_size=8, width=8, heads=2, layers=layers, key_size=2)
    return profile(LanguageModel(shape, torch.Generator().manual_seed(0)), ids, name="model", positions=positions)


def with_node(found, **values):
    """The same profile with other values of its first mixer."""
    tree = found.to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    for name, value in values.items():
        node[name][:] = value
    tree["layers.0.mixer"] = node
    return Profile(tree)


@pytest.mark.parametrize(("mixer", "of"), [("sa", "of 12 tokens kept"), ("gla", "of the 2 that it holds")])
def test_ess_stands_beside_what_is_kept(mixer, of):
    found = small(mixer)
    ess = found.mixer(0)["entropy"].values[0, :, 12].mean()
    assert headline(found) == f"model carries {ess:.1f} numbers per channel past token 12 of 24, {of}."
    assert model_row(found)["ess"] == pytest.approx(ess)


@pytest.mark.parametrize("cut", [5, 16])
def test_a_cut_beside_the_middle_is_named_with_the_tokens_before_it(cut):
    said = headline(small("sa", positions=[cut]))
    assert said.endswith(f" past token {cut} of 24, the cut nearest to the middle, of {cut} tokens kept.")


def test_a_sink_is_a_number_beside_and_a_code():
    found = with_node(small("sa"), without_sink=9, sink_share=0.5)
    assert "(9.0 without sinks)" in headline(found)
    (row,) = found.summary_rows()
    assert (row["without_sink"], row["limits"]) == (9, [Code.SINK.value])
    # A share is of ESS, never of the number without sinks.
    assert row["share_of_ceiling"] == pytest.approx(row["ess"] / 12)
    assert [limit["code"] for limit in found.codes] == [Code.SINK.value]
    assert "without\nsink" in found.table().headings.values()


def test_a_layer_without_numbers_is_in_headline_table_and_document():
    tree = small("gla").to_xarray()
    tree.attrs["skipped"] = {"encoder": Note(Code.NOT_LINEAR).to_json()}
    found = Profile(tree)
    assert headline(found).endswith("; 1 of 2 layers not measured.")
    assert found.summary()["limits"].tolist() == [[], [Code.NOT_LINEAR.value]]
    assert found.to_dict()["lost"][0]["layer"] == "encoder"
    assert Code.NOT_LINEAR.value in repr(found)
    assert str(Note(Code.NOT_LINEAR)) in repr(found)


def test_an_unknown_size_is_a_code_and_no_number():
    found = with_node(small("gla"), state_size=float("nan"), tss=float("nan"), binds=0)
    (row,) = found.to_dict()["mixers"]
    assert (row["tss"], row["share_of_state"], row["limits"]) == (None, None, [Code.UNKNOWN_SIZE.value])


def test_texts_of_different_lengths_have_a_middle():
    found = small("gla", [list(range(8)), list(range(6))])
    assert middle_cut(found) == "the middle of texts of up to 8 tokens"


@pytest.mark.parametrize("mixer", ["sa", "gla"])
def test_a_headline_is_one_sentence_of_thirty_words(mixer):
    found = with_node(small(mixer), without_sink=9, sink_share=0.5)
    tree = found.to_xarray()
    tree[found.mixers[0]].attrs["notes"] = [Note(Code.PART).to_json()]
    tree.attrs |= {
        "model": "a name",
        "skipped": {str(at): Note(Code.NOT_LINEAR).to_json() for at in range(9 * (mixer == "sa"))},
    }
    said = headline(Profile(tree))
    assert len(said.split()) <= 30
    assert re.findall(r"\.(?!\d)", said) == ["."]


@pytest.mark.parametrize(
    ("ids", "positions", "names", "differing"),
    [
        (IDS, None, "01234567", ""),
        (IDS.flip(1), None, "01234567", "texts"),
        (IDS.flip(1), None, "abcdefgh", "tokenizers and texts"),
        (7 - IDS, None, "76543210", "tokenizers"),
        (IDS, [3], "01234567", "cuts"),
    ],
)
def test_a_comparison_ranks_nothing_and_says_what_differs(ids, positions, names, differing):
    tree = small("gla", ids, positions=positions).to_xarray()
    tree["tokens"] = tree["tokens"].copy(data=np.array([*names])[ids])
    compared = compare([small("sa"), Profile(tree)])
    begin = (
        f"Their {differing} differ, so ESS does not" if differing else "Numbers per channel past token 12 of 24: model"
    )
    assert compared.headline.startswith(begin)
    assert ("--wide" in compared.headline) == ("tokenizers" in differing)
