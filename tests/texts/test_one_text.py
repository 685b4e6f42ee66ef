"""Pieces of one text are one unit, whatever reads them: there is then no interval, and the result says so."""

import pytest
import torch
from oracles.attention_models import attention_model

import statesize as ss
from statesize.codes import Code
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.trends.length import length

TEXTS = list(torch.randint(1, 64, (12, 400), generator=torch.Generator().manual_seed(1)))
KEYS = LanguageModel(
    ModelConfig(mixer="sa", vocabulary_size=4096, width=8, heads=2, layers=1, key_size=4),
    torch.Generator().manual_seed(0),
).eval()


READERS = {
    "truncate": lambda texts: ss.truncate(KEYS, texts, documents=5, tokens=8),
    "cache": lambda texts: ss.cache(
        attention_model("llama"), texts, documents=12, tokens=40, settings=ss.Settings(future=8)
    ),
    "length": lambda texts: length(KEYS, texts, lengths=[4, 8, 16], excerpts=5, settings=ss.Settings(future=4)),
}


def intervals(value, name=""):
    """All that a JSON document says under "interval" and "..._interval"."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in intervals(one, key)]
    if isinstance(value, list) and not name.endswith("interval"):
        return [found for one in value for found in intervals(one)]
    return [value] if name.endswith("interval") else []


def told(result):
    """What is said of few texts."""
    return [one.code for one in (result.limits if hasattr(result, "limits") else result.left_out.values())]


@pytest.mark.few(2)
@pytest.mark.parametrize("reader", READERS)
def test_pieces_of_one_text_have_no_interval(reader):
    alone, several = (READERS[reader](texts) for texts in (TEXTS[:1], TEXTS))
    assert set(map(str, intervals(alone.to_dict()))) == {"None"}
    assert any(intervals(several.to_dict()))
    assert Code.FEW_TEXTS in told(alone)
    assert Code.FEW_TEXTS not in told(several)
