"""What a model configuration refuses, and its written form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statesize.errors import FileError
from statesize.lab.mixers import ModelConfig, mixer


@given(
    st.sampled_from([*mixer.names(), "s6,sa"]),
    st.fixed_dictionaries(
        {},
        optional={
            "width": st.sampled_from([16, 64]), "dropout": st.floats(0, 0.9), "decay_bias": st.floats(-9, 9),
            "window": st.integers(1, 9), "normalised": st.booleans(), "largest_step": st.floats(0.1, 2),
            "positions": st.integers(0, 64), "tied": st.booleans(),
        },
    ),
)  # fmt: skip
def test_the_written_form_comes_back(name, changes):
    config = ModelConfig(name, **changes)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_optional_fields_are_not_written_where_they_have_their_defaults():
    # The keys of records of earlier runs follow from the written form.
    assert not {"window"} & ModelConfig().to_dict().keys()


def test_a_pattern_is_repeated_until_every_layer_has_a_mixer():
    config = ModelConfig(mixer="gla,gla,sa", layers=6)
    assert [config.mixer_of(layer) for layer in range(6)] == ["gla", "gla", "sa"] * 2
    assert ModelConfig(mixer="la", layers=5).mixer_of(4) == "la"


@pytest.mark.parametrize(
    "change",
    [
        lambda values: {**values, "format": 99},
        *(lambda values, left=left: {k: v for k, v in values.items() if k != left} for left in ("format", "width")),
        lambda values: {**values, "colour": 1},
        lambda values: {**values, "heads": 5},
        lambda values: [values],
    ],
)
def test_a_damaged_or_foreign_form_is_refused(change):
    with pytest.raises(FileError):
        ModelConfig.from_dict(change(ModelConfig().to_dict()), "here")
