"""Quantised weights are measured on a copy in floating point; what rounds more than weights is refused by its cause."""

from types import SimpleNamespace

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic

import statesize as ss
from statesize.adapters.models.quantised import float_model, measurable
from statesize.errors import ModelError


def refused(pattern, model):
    for call in (ss.capture, ss.profile):
        with pytest.raises(ModelError, match=pattern) as caught:
            call(model, token_ids())
        assert "\n" not in str(caught.value)


class Quantised(Tensor):
    """A subclass as torchao has them: it says float32, holds integers, and has its own way back."""

    rounded = staticmethod(lambda inputs: inputs)

    @staticmethod
    def __new__(cls, integers, scale):
        made = Tensor._make_wrapper_subclass(cls, integers.shape, dtype=torch.float32)
        made.integers, made.scale = integers, scale
        return made

    def dequantize(self):
        return self.integers.float() * self.scale

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            args = (cls.rounded(args[0]), *(part.dequantize() if isinstance(part, cls) else part for part in args[1:]))
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].integers, args[0].scale)
        raise NotImplementedError(func)


class QuantisedThroughout(Quantised):
    """One that rounds what it is multiplied with too."""

    @staticmethod
    def rounded(inputs):
        scale = inputs.abs().amax(-1, keepdim=True) / 127
        return (inputs / scale).round() * scale


def quantised(kind):
    """A Llama with a layer of such weights, and the same numbers in floating point."""
    model, plain = attention_model("llama"), attention_model("llama")
    for one, weights in ((model, lambda weight: weight), (plain, Quantised.dequantize)):
        for layer in one.model.layers:
            for name in ("q_proj", "v_proj"):
                part = getattr(layer.self_attn, name)
                scale = part.weight.detach().abs().amax(1, keepdim=True) / 127
                integers = (part.weight.detach() / scale).round().to(torch.int8)
                part.weight = nn.Parameter(weights(kind(integers, scale)), requires_grad=False)
    return model, plain


def test_weights_alone_are_measured_on_a_copy():
    model, plain = quantised(Quantised)
    before = dict(model.named_parameters())
    copied, stored = float_model(model)
    assert stored == "Quantised, dequantised"
    assert all(model.get_parameter(name) is weight for name, weight in before.items())
    for name, weight in plain.named_parameters():
        assert torch.equal(copied.get_parameter(name), weight), name
    # What was not quantised is copied too: a change of the model changes nothing that is measured.
    assert copied.get_parameter("model.norm.weight") is not before["model.norm.weight"]
    found, expected = ss.profile(model, token_ids()), ss.profile(plain, token_ids())
    assert found.attributes["source"] == {"weights": "Quantised, dequantised"}
    assert expected.attributes["source"] == {}
    for name in expected.mixers:
        assert found.mixer(name)["entropy"].identical(expected.mixer(name)["entropy"])


@pytest.mark.parametrize("attribute", ["act_quant_kwargs", "act_quant_scale", "input_quant_func"])
def test_weights_that_say_that_inputs_are_rounded_are_refused(attribute):
    # As torchao's do, whose layers may agree with their weights where little is rounded.
    model, _ = quantised(Quantised)
    weight = model.model.layers[0].self_attn.q_proj.weight
    setattr(weight, attribute, None)
    assert float_model(model)[1] == "Quantised, dequantised"
    setattr(weight, attribute, {})
    refused(r"q_proj\.weight must round its weights alone", model)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_tensors_of_torch_are_taken_back():
    model = attention_model("llama")
    weights = torch.quantize_per_tensor(torch.ones(8, 8), 0.5, 3, torch.qint8)
    model.model.layers[1].mlp.register_buffer("weights", weights)
    copied, stored = float_model(model)
    assert stored == "Tensor, dequantised"
    assert torch.equal(copied.model.layers[1].mlp.weights, torch.ones(8, 8))


def by_transformers(method, **config):
    """What a model has that transformers has quantised."""
    return SimpleNamespace(quantization_config=SimpleNamespace(quant_method=method, **config))


def test_a_model_that_transformers_has_dequantised_is_measured_itself():
    """It says that it is quantised, and holds floating point alone, beside masks and tables of positions."""
    model = attention_model("llama")
    model.model.layers[0].register_buffer("mask", torch.ones(8, 8, dtype=torch.bool))
    model.model.layers[0].register_buffer("places", torch.arange(64).reshape(8, 8))
    model.hf_quantizer, model.is_quantized = by_transformers("gguf"), True
    assert float_model(model) == (model, "gguf, dequantised")


class Packed(nn.Module):
    """Weights as bitsandbytes has them on a CPU: the first run packs them otherwise; `noise` rounds its inputs."""

    def __init__(self, linear, noise):
        super().__init__()
        self.scale = linear.weight.detach().abs().max() / 127
        self.register_buffer("packed", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.packed_for_cpu, self.noise = False, noise

    def forward(self, hidden):
        if not self.packed_for_cpu:
            self.packed, self.packed_for_cpu = self.packed.flip(0), True
        step = self.noise * hidden.abs().max()
        rounded = (hidden / step).round() * step if self.noise else hidden
        return nn.functional.linear(rounded, self.packed.flip(0) * self.scale)


def packed(noise=0):
    """A Llama with such a layer that transformers takes back to floating point as it was before the first run."""
    model = attention_model("llama")

    class Quantised(type(model)):
        def dequantize(self):
            attention = self.model.layers[0].self_attn
            if isinstance(attention.v_proj, Packed):
                weight = attention.v_proj.packed * attention.v_proj.scale
                attention.v_proj = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                attention.v_proj.weight = nn.Parameter(weight)
            return self

    model.__class__, model.hf_quantizer = Quantised, by_transformers("bitsandbytes")
    model.model.layers[0].self_attn.v_proj = Packed(model.model.layers[0].self_attn.v_proj, noise)
    return model


def test_a_copy_is_compared_with_the_model_on_what_is_measured():
    """Measuring is no first run of the model, whose own packs its weights so that they are not what the copy has."""
    model = packed()
    for _ in range(2):
        assert ss.profile(model, token_ids()).attributes["source"] == {"weights": "bitsandbytes, dequantised"}
    model(token_ids())
    # The first refusal clears nothing up.
    for one in (copied := measurable(model), copied, model):
        refused("is not its copy in floating point", one)


def integers(dtype):
    """Packed weights that only their layer can read, as those of HQQ, which has its scales in an attribute."""
    return nn.ParameterDict({"W_q": nn.Parameter(torch.zeros(8, 8, dtype=dtype), requires_grad=False)})


def changed(**values):
    """A Llama with other attributes, of its own and of a projection."""
    model = attention_model("llama")
    for name, value in values.items():
        setattr(model if name == "hf_quantizer" else model.model.layers[1].mlp, name, value)
    return model


IN_8_BITS = by_transformers("bitsandbytes", to_dict=lambda: {"load_in_8bit": True})
GPTQ, ON_META = by_transformers("gptq"), nn.Linear(2, 2, device="meta")
REFUSED = [
    ("is not its copy in floating point", lambda: quantised(QuantisedThroughout)[0]),
    ("q_proj must round its weights alone", lambda: quantize_dynamic(attention_model("llama"), {nn.Linear})),
    (r"weights alone \(bitsandbytes\)", lambda: changed(hf_quantizer=IN_8_BITS)),
    ("weights by gptq, of which no copy", lambda: changed(hf_quantizer=GPTQ, up_proj=integers(torch.int32))),
    (r"mlp must round its weights alone", lambda: changed(activation_qtype="int8")),  # as quanto's layers say
    (r"up_proj\.W_q must be in floating point", lambda: changed(up_proj=integers(torch.uint8))),
    (r"Parameter .*up_proj\.weight is on the meta device.*without device_map", lambda: changed(up_proj=ON_META)),
]


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(("cause", "make"), REFUSED, ids=[cause for cause, _ in REFUSED])
def test_what_rounds_more_than_weights_or_has_no_way_back_is_refused_by_its_cause(cause, make):
    refused(cause, make())


@pytest.mark.parametrize("way", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_weights_of_torchao(way):
    quantization = pytest.importorskip("torchao.quantization")
    model = attention_model("llama")
    quantization.quantize_(model, getattr(quantization, way)())
    if way != "Int8WeightOnlyConfig":
        refused(r"q_proj\.weight must round its weights alone", model)
        return
    copied, stored = float_model(model)
    assert stored == "Int8Tensor, dequantised"
    own, of_copy = (one(token_ids(), output_hidden_states=True).hidden_states[-1] for one in (model, copied))
    assert (own - of_copy).abs().max() <= 3e-6 * of_copy.abs().max()
    assert [item.kind for item in ss.capture(model, token_ids())] == ["attention"] * len(copied.model.layers)
