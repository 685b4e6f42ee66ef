"""All public functions that take a model load it where it is named, or say what they take."""

from pathlib import Path

import pytest

import statesize as ss
from statesize.lab.training import mixer_calls

_TEXT = "the cat sat on the mat"


def test_a_named_model_reads_a_text_wherever_a_model_is_taken():
    model, tokenizer = ss.load("gla")
    ids = ss.capture("gla", _TEXT).length
    assert ids == len(ss.profile(model, _TEXT, tokenizer=tokenizer, layers=0).ess(0).columns)
    (captured,) = ss.capture("gla", _TEXT, 0)
    assert (captured.name, captured.kind) == ("layers.0.mixer", "gla")
    assert ss.network_ess("gla", _TEXT, positions=[2], method="dense").positions.tolist() == [2]


@pytest.mark.parametrize("name", ["profile", "capture", "network_ess", "cache", "truncate"])
@pytest.mark.parametrize("model", [3, Path("gla")])
def test_what_is_neither_a_module_nor_a_name_is_refused_with_what_to_do(name, model):
    refusal = rf"model must be a torch module, got {type(model).__name__}\. Give one, or where a name is loaded, the na"
    with pytest.raises(ss.errors.InputError, match=refusal):
        getattr(ss, name)(model, [_TEXT])


def test_what_watches_a_module_refuses_a_name():
    with (
        pytest.raises(ss.errors.InputError, match=r"str\. Give statesize\.load\(NAME\)\.model"),
        mixer_calls("gla"),
    ):
        pass
