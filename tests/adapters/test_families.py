"""The table of families is what the sweep finds: popular families in every run, all of them on request."""

from functools import partial

import pytest
import transformers
from oracles.family_sweep import sweep
from oracles.tiny_families import MORE, SHORT, names, tiny

from tools.figures.families import FAMILIES
from tools.figures.families import TABLE as SWEEP

TABLE = {family.name: family for family in FAMILIES}
# One popular family for each way to mix, and for each way to write it.
QUICK = frozenset(
    "llama gemma2 gpt2 deepseek_v3 deepseek_v32 deepseek_v4 gpt_oss mamba mamba2 falcon_h1 qwen3_next granite_swa "
    "diffllama lfm2 kimi_linear minimax recurrent_gemma rwkv xlstm bloom".split()
)
pytestmark = pytest.mark.skipif(
    transformers.__version__ != SWEEP["transformers"], reason="the table is that of another version of transformers"
)


def check(name, build):
    row, family = sweep(name, build), TABLE[name]
    assert (row.status, row.mixers, row.model) == (family.status, family.mixers, family.model)
    assert (row.maps is None, row.impulses is None) == (family.maps is None, family.impulses is None)
    if row.status == "measured":
        assert row.logits == 0
        assert row.faithfulness < 1e-5


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in SHORT]
)
def test_popular_families_are_measured_as_the_table_says(family):
    assert TABLE[family].status == "measured"
    check(family, partial(tiny, family))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in TABLE if name not in SHORT])
def test_every_other_family_is_as_the_table_says(family):
    check(family, partial(tiny, family) if family in names() else MORE[family])


def test_the_table_has_every_family_and_none_is_wrong():
    registered = [family.name for family in FAMILIES if family.registered]
    assert registered == names()
    assert not [family for family in FAMILIES if family.status == "wrong"]
    assert sum(family.registered for family in FAMILIES if family.status == "measured") >= 165
    assert all(family.reason for family in FAMILIES if family.status != "measured")


def test_what_is_measured_agrees_with_an_oracle():
    for family in (family for family in FAMILIES if family.status == "measured"):
        assert family.logits == 0
        assert (family.maps if family.impulses is None else family.impulses) < 1e-5
