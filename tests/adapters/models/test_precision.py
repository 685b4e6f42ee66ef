"""Half-precision weights: the same operators as of the float32 model."""

import copy
from functools import partial

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny
from torch import nn

from statesize import capture
from statesize.adapters.models.precision import at_least, hold_at_least, stored_dtype
from statesize.adapters.runs import bare
from statesize.errors import InputError


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", torch.float16), ("deepseek_v3", torch.bfloat16), ("gptj", torch.float16), ("bloom", torch.bfloat16)],
)
def test_operators_are_in_double_precision_and_close_to_those_of_the_upcast_model(family, dtype):
    model, ids = attention_model(family).to(dtype), token_ids()
    captured = capture(model, ids)
    assert captured.run_difference == 0
    first, single = next(captured), next(capture(copy.deepcopy(model).float(), ids))
    assert first.operator.dtype == torch.float64
    assert 0 < first.faithfulness <= {torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    # The first layer has the same input; its queries and keys are rounded.
    torch.testing.assert_close(first.operator.dense(), single.operator.dense(), rtol=0, atol=0.05)
    assert first.state_bytes == single.state_bytes // 2


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "recurrent_gemma", "lfm2", "rwkv"])
def test_recurrences_are_of_what_the_low_precision_model_computed(family):
    for item in capture(tiny(family).bfloat16(), token_ids()):
        assert item.operator.dtype == torch.float64
        assert 0 < item.faithfulness <= 1e-2


def test_stored_size_is_not_that_of_the_copy():
    model = nn.Linear(2, 2).bfloat16()
    in_single = partial(hold_at_least, model, torch.float32)
    assert bare(model, lambda: (model.weight.itemsize, stored_dtype(model).itemsize), attach=in_single) == (4, 2)
    assert (stored_dtype(model).itemsize, stored_dtype(nn.Identity()).itemsize) == (2, 4)


def test_tensors_in_lists_and_mappings_are_converted():
    half, count = torch.ones(1, 2).half(), torch.tensor(1)
    found = at_least({"hidden": [half, (count, half)], "scale": 2}, torch.float32)
    first, (second, third) = found["hidden"]
    assert (first.dtype, second.dtype, third.dtype) == (torch.float32, torch.int64, torch.float32)
    assert found["scale"] == 2


def test_a_model_that_does_not_run_in_its_own_half_precision_says_so():
    with pytest.raises(InputError, match=r"must be what enters xLSTMForCausalLM, whose weights are in torch\.bfloat16"):
        capture(tiny("xlstm").bfloat16(), token_ids())
