"""Half-precision weights: the same operators as of the float32 model, the same tensors afterwards."""

import copy

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.recurrent_models import tiny_model
from torch import nn

from statesize.adapters import capture
from statesize.adapters.forward import measuring, run_model
from statesize.adapters.precision import single_precision, stored_dtype, stored_element_size


def logits(model, ids):
    with measuring(model):
        return run_model(model, ids, all_logits=True).logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt_oss", "deepseek_v3", "gemma3_text", "gptj"])
def test_operators_and_logits_are_those_of_the_upcast_model(family, dtype):
    model, ids = attention_model(family).to(dtype), token_ids()
    upcast = copy.deepcopy(model).float()
    for low, single in zip(capture(model, ids), capture(upcast, ids), strict=True):
        assert low.operator.dtype == torch.float32
        torch.testing.assert_close(low.operator.dense(), single.operator.dense(), rtol=0, atol=0)
        assert low.state_bytes == single.state_bytes // 2
    torch.testing.assert_close(logits(model, ids), logits(upcast, ids), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "qwen3_next", "recurrent_gemma", "lfm2", "rwkv"])
def test_recurrences_are_those_of_the_upcast_model(family):
    model, ids = tiny_model(family).bfloat16(), token_ids()
    upcast = copy.deepcopy(model).float()
    for low, single in zip(capture(model, ids), capture(upcast, ids), strict=True):
        torch.testing.assert_close(low.operator.dense(), single.operator.dense(), rtol=0, atol=0)


def test_one_layer_is_copied_at_a_time():
    model = attention_model("llama").bfloat16()
    layers, seen = model.model.layers, []

    def look(*_):
        seen.append([parameter.dtype for layer in layers for parameter in layer.parameters()])

    with layers[0].mlp.register_forward_hook(look), layers[1].mlp.register_forward_hook(look):
        list(capture(model, token_ids(), 0))
    count = len(list(layers[0].parameters()))
    single, low = [torch.float32] * count, [torch.bfloat16] * count
    assert seen == [single + low, low + single]


def test_the_same_tensors_come_back_and_tied_ones_stay_tied():
    model = attention_model("gpt2").bfloat16()
    before = {
        name: (parameter, parameter.data_ptr(), parameter.clone()) for name, parameter in model.named_parameters()
    }
    list(capture(model, token_ids()))
    for name, parameter in model.named_parameters():
        original, pointer, value = before[name]
        assert parameter is original
        assert parameter.data_ptr() == pointer
        assert torch.equal(parameter, value)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_embedding_is_looked_up_as_it_is():
    embedding = nn.Embedding(5, 3, dtype=torch.bfloat16)
    seen = []
    with (
        single_precision(embedding),
        embedding.register_forward_pre_hook(lambda *_: seen.append(embedding.weight.dtype)),
    ):
        found = embedding(torch.tensor([1]))
    assert (found.dtype, seen) == (torch.float32, [torch.bfloat16])


def test_weights_used_without_calling_their_module_are_upcast_too():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(3, 3, bias=False)
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, hidden):
            return self.scale * nn.functional.linear(hidden, self.part.weight)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.shift = nn.ModuleList([Block()]), nn.Parameter(torch.ones(3))

        def forward(self, hidden):
            return self.layers[0](hidden + self.shift)

    model = Model().half()
    with torch.no_grad(), single_precision(model):
        result = model(torch.ones(1, 3, dtype=torch.float16))
    expected = copy.deepcopy(model).float()(torch.ones(1, 3))
    assert torch.equal(result, expected)


def test_stored_size_is_not_that_of_the_copy():
    model = nn.Linear(2, 2).bfloat16()
    sizes = []
    with single_precision(model), model.register_forward_hook(lambda *_: sizes.append(stored_element_size(model))):
        model(torch.ones(1, 2))
    assert (sizes, stored_element_size(model), stored_element_size(nn.Identity())) == ([2], 2, 4)


def test_the_stored_dtype_is_that_of_the_first_weight_that_is_no_integer():
    module = nn.Linear(2, 2).half()
    module.register_parameter("weight", nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False))
    assert stored_dtype(module) == torch.float16


def test_tensors_in_lists_and_mappings_are_converted():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(2, 2)

        def forward(self, given):
            return [given["hidden"][0].dtype, given["hidden"][1]]

    half, count = torch.ones(1, 2).half(), torch.tensor(1)
    model = Several().half()
    with single_precision(model):
        assert model({"hidden": [half, count]}) == [torch.float32, count]


class Interrupted(nn.Module):
    """One whose part is interrupted, and that goes on."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(2, 2, bias=False)

    def forward(self, hidden):
        try:
            return self.part(hidden)
        except KeyboardInterrupt:
            return hidden * 2


def test_weights_come_back_of_a_part_that_could_not_say_that_it_ended():
    def interrupt(*_):
        raise KeyboardInterrupt

    model = nn.Sequential(Interrupted(), nn.Linear(2, 2, bias=False)).half()
    weights = [model[0].part.weight, model[1].weight]
    with single_precision(model), model[0].part.register_forward_pre_hook(interrupt):
        assert model(torch.ones(1, 2).half()).dtype == torch.float32
        assert [model[0].part.weight, model[1].weight] == weights
    assert [model[0].part.weight, model[1].weight] == weights


def test_a_hook_that_fails_before_the_weights_were_copied():
    def fail(*_):
        raise ValueError("before all")

    model = nn.Linear(2, 2, bias=False).half()
    weight = model.weight
    with single_precision(model), model.register_forward_pre_hook(fail, prepend=True):
        with pytest.raises(ValueError, match="before all"):
            model(torch.ones(1, 2).half())
    assert model.weight is weight
