"""Quantised weights are refused before anything runs, by the name of the module and what it was found to be."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import Tensor, nn

import statesize as ss
from statesize.adapters.models.checks import measurable
from statesize.errors import ModelError


def refused(pattern, model):
    for call in (ss.capture, ss.profile):
        with pytest.raises(ModelError, match=pattern) as caught:
            call(model, token_ids())
        assert "\n" not in str(caught.value)


class Quantised(Tensor):
    """A subclass as torchao has them: it says float32, holds integers, and has its own way back."""

    def dequantize(self):
        return torch.ones(self.shape)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_dynamic_quantisation_of_torch_is_refused():
    model = torch.ao.quantization.quantize_dynamic(attention_model("llama"), {nn.Linear}, dtype=torch.qint8)
    refused(
        r"Module model\.layers\.0\.self_attn\.q_proj must have .* got torch\.ao\.nn\.quantized\.dynamic.*Linear", model
    )


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_tensors_that_say_float_and_hold_integers_are_refused(kind):
    model = attention_model("llama")
    weights = torch.zeros(8, 8).as_subclass(Quantised)
    if kind == "parameter":
        model.model.layers[1].mlp.up_proj.weight = nn.Parameter(weights, requires_grad=False)
    else:
        model.model.layers[1].mlp.up_proj.register_buffer("weight_scaled", weights)
    refused(
        r"Parameter model\.layers\.1\.mlp\.up_proj\.weight.* must be in floating point, got .*\.Quantised of", model
    )


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_tensors_of_torch_are_refused():
    model = attention_model("llama")
    weights = torch.quantize_per_tensor(torch.zeros(8, 8), 1.0, 0, torch.qint8)
    model.model.layers[1].mlp.register_buffer("weights", weights)
    refused(r"Parameter model\.layers\.1\.mlp\.weights must be in floating point", model)


def test_the_name_is_that_of_the_module_that_is_compiled():
    model = attention_model("llama")
    model.model.layers[1].mlp.up_proj.weight = nn.Parameter(torch.zeros(8, 8, dtype=torch.int8), requires_grad=False)
    model.model.layers[1] = torch.compile(model.model.layers[1], backend="eager")
    refused(r"Parameter model\.layers\.1\.mlp\.up_proj\.weight is int8: quantised", model)


def test_other_subclasses_of_tensors_are_left_alone():
    class Plain(Tensor):
        pass

    module = nn.Linear(4, 4)
    module.weight = nn.Parameter(torch.ones(4, 4).as_subclass(Plain))
    assert measurable(module) is module


def test_weights_of_torchao_are_refused():
    quantization = pytest.importorskip("torchao.quantization")
    model = attention_model("llama")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    refused(r"Parameter model\.layers\.0\.self_attn\.q_proj\.weight must be in floating point, got torchao\.", model)
