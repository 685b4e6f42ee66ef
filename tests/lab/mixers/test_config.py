"""What a model configuration refuses, and its written form."""

import json

import pytest

from statesize.errors import FileError, InputError
from statesize.lab.mixers import ModelConfig


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mixer": "lstm"}, r"one of .*gla.*got 'lstm'"),
        ({"width": 100, "heads": 3}, r"width must be a multiple of heads, 3, got 100. Give 99"),
        ({"layers": 0}, r"layers must be .*got 0"),
        ({"dropout": 1.0}, r"dropout must be a number of at least 0 and below 1, got 1\.0"),
        ({"dropout": 10**400}, r"dropout must be a finite number, got 10+"),
        ({"decay_bias": float("nan")}, r"decay_bias must be .*got nan"),
        ({"decay_bias": -64}, "decay_bias must be a number above -64 and below 64, got -64"),
        ({"mixer": "gla, sa"}, r"such as 'gla,sa' without spaces, got 'gla, sa'"),
        ({"normalised": 1}, r"normalised must be .*got 1"),
        (
            {"mixer": "gla,sa,gla", "layers": 4},
            r"layers must be a multiple of the 3 that mixer 'gla,sa,gla' names, got 4",
        ),
        ({"smallest_step": 0.0}, r"smallest_step must be above 0 and at most largest_step, 0\.1, got 0\.0"),
        ({"positions": -1}, r"positions must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_values_are_refused_and_quoted(changes, said):
    with pytest.raises(InputError, match=said):
        ModelConfig(**changes)


def test_the_written_form_comes_back():
    for config in (
        ModelConfig(mixer="wla", width=64, decay_bias=0.0, dropout=0.2),
        ModelConfig(mixer="la", window=8),
        ModelConfig(mixer="s6,sa", normalised=True, smallest_step=0.01, largest_step=1, positions=64),
    ):
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
    with pytest.raises(FileError, match="here must be the configuration of a model of this version"):
        ModelConfig.from_dict(change(ModelConfig().to_dict()), "here")
