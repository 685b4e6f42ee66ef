"""The table of families is what the families' models show."""

import pytest
import transformers
from oracles import attention_models, recurrent_models

from statesize.adapters import capture
from statesize.adapters.families import FAMILIES, STATE_SIZES


def test_every_family_that_is_tested_is_listed_once():
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert set(names) == set(attention_models.FAMILIES) | set(recurrent_models.FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_mixers_are_those_of_a_model(family):
    if family.name not in transformers.CONFIG_MAPPING:
        assert transformers.__version__ not in family.checked
        pytest.skip(f"transformers {transformers.__version__} has no {family.name}")
    recurrent = family.name in recurrent_models.FAMILIES
    build = recurrent_models.tiny_model if recurrent else attention_models.attention_model
    captured = capture(build(family.name), attention_models.token_ids(), short_convolutions=True)
    kinds = {mixer.kind for mixer in captured.mixers}
    assert set(family.mixers) <= kinds <= {*family.mixers, "short convolution"} <= set(STATE_SIZES)
    assert captured.skipped == {}
    for item in captured:
        assert item.faithfulness < 1e-5
        assert not item.operator.dense().requires_grad
