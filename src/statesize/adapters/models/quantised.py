"""The module that is measured, in floating point: of quantised weights, a copy that holds the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import (
    NamedModules,
    check_parts,
    copied,
    named_parts,
    pretrained_models,
    unwrapped,
)
from statesize.adapters.models.sharded import check_sharding
from statesize.errors import ModelError, StatesizeError

# What weights of torchao and others hold, and layers of quanto, where inputs are rounded too.
_ROUNDS_INPUTS = ("act_quant_kwargs", "act_quant_scale", "input_quant_func", "activation_qtype")
_QUANTISED_MODULES = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_ADVICE = "which shows up as state that is not there. Give the model that was quantised."
# Settings under which a model also rounds what its layers pass on, by the method that has them.
_ROUNDS_ACTIVATIONS = {
    **dict.fromkeys(("fp8", "mxfp8", "fbgemm_fp8", "bitnet", "nvfp4"), "quant_method"),
    "quanto": "activations",
    "bitsandbytes": "load_in_8bit",
}

READ_DEQUANTISED = ("mxfp4", "compressed-tensors", "gguf", "metal", "fp8", "mxfp8")
"""Methods whose weights transformers itself reads into floating point on request; others are taken back afterwards."""

UNCOMPARED = "_statesize_quantised"
"""The attribute of a copy in floating point that has the model it stands for, until the two were compared once."""


def measurable(model: object) -> nn.Module:
    """The module that runs in what holds it, with weights in floating point; as `float_model` without how they were."""
    return float_model(model)[0]


def float_model(model: object) -> tuple[nn.Module, str]:
    """The module that runs in what holds it, or a dequantised copy, and how its weights are stored if quantised."""
    # A copy does what the model does, but for rounding in its products; a model that rounds what its layers pass on, or
    # that no way back is known of, is refused.
    module = unwrapped(model)
    parts = named_parts(module)
    pretrained = pretrained_models(parts)
    check_parts(parts)
    parameters = [pair for name, part in parts for pair in part.named_parameters(name, recurse=False)]
    if (empty := next((name for name, parameter in parameters if parameter.is_meta), None)) is not None:
        raise ModelError(
            f"Parameter {empty} is on the meta device, so the model has no weights; load them with from_pretrained, "
            "without device_map and offloading, or move the model with to_empty() and fill it."
        )
    check_sharding(parts, parameters)
    for part in pretrained:
        if getattr(part.config, "quantization_config", None):
            check_method(type(part).__name__, part.config)
    method = ""
    quantisers = (getattr(part, "hf_quantizer", None) for part in pretrained)
    if (quantiser := next(filter(None, quantisers), None)) is not None:
        config = quantiser.quantization_config
        method = _method(getattr(config, "quant_method", "quantised"))
        settings: dict[str, Any] = config.to_dict() if hasattr(config, "to_dict") else {}
        check_rounding(type(module).__name__, settings | {"quant_method": method})
        if _packed(module):
            return _by_transformers(module, method), f"{method}, dequantised"
    tensors = [*parameters, *(pair for name, part in parts for pair in part.named_buffers(name, recurse=False))]
    for name, holder in (*parts, *tensors):
        kind = type(holder)
        rounds_inputs = any(getattr(holder, attribute, None) is not None for attribute in _ROUNDS_INPUTS)
        if rounds_inputs or kind.__module__.startswith(_QUANTISED_MODULES):
            raise ModelError(
                f"{name or kind.__name__} must round its weights alone, got {kind.__module__}.{kind.__name__}, which "
                f"rounds what the layer is given too, {_ADVICE}"
            )
    kinds = dict.fromkeys(type(tensor).__name__ for _, tensor in tensors if _has_way_back(tensor))
    whole = _without_subclasses(module) if kinds else module
    _refuse_others(named_parts(whole) if kinds else parts)
    if kinds:
        vars(whole)[UNCOMPARED] = module
    return whole, f"{method or ', '.join(kinds)}, dequantised" if method or kinds else ""


def _method(stated: object) -> str:
    """A name, or that of an item of an enumeration of names."""
    return str(getattr(stated, "value", stated))


def quantisation(config: Any) -> dict[str, Any]:
    """What a configuration of transformers says of quantised weights; empty where they are not."""
    stated: Any = getattr(config, "quantization_config", None) or {}
    settings = cast("dict[str, Any]", stated if isinstance(cast("object", stated), dict) else stated.to_dict())
    return settings | {"quant_method": _method(settings.get("quant_method"))} if settings else {}


def check_method(name: str, config: Any, kind: type[StatesizeError] = ModelError) -> None:
    """Refuse a model that is quantised by a method that transformers skips, loading weights without their scales."""
    settings = quantisation(config)
    if not settings:
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as methods

    method = settings["quant_method"]
    if method not in methods and method != "bitsandbytes":
        raise kind(
            f"{name} is quantised by a method that transformers does not know ({method}), so its scales would be left "
            "out. Give the checkpoint that it was made from, or take quantization_config out of its configuration."
        )


def check_rounding(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse a model whose configuration says that it rounds more than its weights."""
    method = str(settings.get("quant_method"))
    if settings.get("dequantize") and method in READ_DEQUANTISED:
        return
    if settings.get(_ROUNDS_ACTIVATIONS.get(method, "")) or _rounds_inputs(settings):
        raise ModelError(
            f"{name} rounds what its layers pass on, not its weights alone ({method}), which shows up as state that is "
            f"not there. {_advice(method)}"
        )


def _advice(method: str) -> str:
    whole = ', or load it with "dequantize": true in its quantization_config' if method in READ_DEQUANTISED else ""
    return f"Give the checkpoint that it was made from{whole}."


def _rounds_inputs(settings: object) -> bool:
    if isinstance(settings, Mapping):
        entries = cast("Mapping[str, object]", settings)
        return bool(entries.get("input_activations")) or any(map(_rounds_inputs, entries.values()))
    return isinstance(settings, list) and any(map(_rounds_inputs, cast("list[object]", settings)))


def _has_way_back(tensor: Tensor) -> bool:
    """Whether a tensor holds quantised numbers: torch's own, or a subclass that says a dtype of floating point."""
    return tensor.is_quantized or type(tensor).dequantize is not Tensor.dequantize


def _packed(model: nn.Module) -> bool:
    """Whether layers hold their weights as integers that only the library that made them can read."""
    return any(
        # Masks are boolean, and tables of positions 64-bit integers.
        tensor.element_size() < 2 if tensor.is_floating_point() else tensor.dtype not in (torch.bool, torch.int64)
        for module in model.modules()
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if not isinstance(module, nn.Embedding) and tensor.ndim > 1 and not _has_way_back(tensor)
    )


def _by_transformers(model: nn.Module, method: str) -> nn.Module:
    """A copy that the quantiser of transformers has taken back to floating point."""
    try:
        whole = copied(model)
        for part in pretrained_models(named_parts(whole))[:1]:
            part.dequantize()
    except Exception as error:  # a quantiser without a way back says so in a way of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{type(model).__name__} has weights by {method}, of which no copy in floating point can be made here "
            f"({reason}). {_advice(method)}"
        ) from error
    _refuse_others(named_parts(whole))
    # A copy of its own: the first run of a packed model may pack its weights otherwise.
    vars(whole)[UNCOMPARED] = copied(model)
    return whole


def _without_subclasses(model: nn.Module) -> nn.Module:
    """A copy with plain tensors instead of subclasses."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if _has_way_back(tensor):
            plain = tensor.detach().dequantize().contiguous()
            memo[id(tensor)] = nn.Parameter(plain, requires_grad=False) if isinstance(tensor, nn.Parameter) else plain
    return copied(model, memo)


def _refuse_others(parts: NamedModules) -> None:
    """Refuse what still holds quantised numbers."""
    for name, part in parts:
        for own, tensor in (*part.named_parameters(name, recurse=False), *part.named_buffers(name, recurse=False)):
            if tensor.is_quantized or (isinstance(tensor, nn.Parameter) and tensor.element_size() < 2):
                kind = f"{type(part).__module__}.{type(part).__name__}"
                raise ModelError(
                    f"Parameter {own} must be in floating point, got {tensor.dtype}, quantised weights of a {kind} "
                    f"without the scales that would take them back, {_ADVICE}"
                )
