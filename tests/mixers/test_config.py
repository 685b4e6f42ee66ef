"""What a model configuration refuses, and its written form."""

import json

import pytest

from statesize.errors import FileError, InputError
from statesize.mixers import ModelConfig


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mixer": "mamba"}, r"'mamba'.*sa, la, wla, gla"),
        ({"width": 100, "heads": 3}, r"width is 100 and heads is 3.*99"),
        ({"width": 2, "heads": 4}, r"width is 2 and heads is 4.*such as 4"),
        ({"layers": 0}, r"layers is 0"),
        ({"key_size": 2.5}, r"key_size is 2\.5"),
        ({"heads": True}, r"heads is True"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"decay_bias": float("nan")}, r"decay_bias is nan"),
    ],
)
def test_bad_values_are_refused_and_quoted(changes, said):
    with pytest.raises(InputError, match=said):
        ModelConfig(**changes)


def test_the_written_form_comes_back():
    config = ModelConfig(mixer="wla", width=64, decay_bias=0.0, dropout=0.2)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: {**values, "format": 99}, r"here has format 99; this statesize reads format 1"),
        (lambda values: {k: v for k, v in values.items() if k != "format"}, r"format None"),
        (lambda values: {k: v for k, v in values.items() if k != "width"}, r"lacks \['width'\] and has unknown \[\]"),
        (lambda values: {**values, "colour": 1}, r"unknown \['colour'\]"),
        (lambda values: {**values, "width": "wide"}, r"width = 'wide'; expected int"),
        (lambda values: {**values, "heads": 5}, r"here: width is 128 and heads is 5"),
        (lambda values: [values], r"here holds list"),
    ],
)
def test_a_damaged_or_foreign_form_is_refused(change, said):
    with pytest.raises(FileError, match=said):
        ModelConfig.from_dict(change(ModelConfig().to_dict()), "here")
