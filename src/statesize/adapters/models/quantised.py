"""Quantised weights, which are refused: what their rounding adds cannot be told from state."""

from __future__ import annotations

from torch import Tensor, nn

from statesize.adapters.models.pretrained import pretrained_models
from statesize.adapters.models.wrapped import named_parts, plain_name
from statesize.errors import ModelError


def check_not_quantised(model: nn.Module) -> None:
    """Refuse quantised weights of every kind: of transformers, torch, torchao, and plain integers.

    Args:
        model: Any module.

    Raises:
        ModelError: Some of its weights are quantised.
    """
    for part in pretrained_models(model):
        if getattr(part, "hf_quantizer", None) is not None or getattr(part, "is_quantized", False):
            raise ModelError(
                f"{type(part).__name__} has quantised weights, whose rounding shows up as state that is not there. "
                "Load it without quantization_config."
            )
    for name, module in named_parts(model):
        kind = type(module)
        if kind.__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise ModelError(
                f"Module {name or kind.__name__} must have weights in floating point, got {kind.__module__}."
                f"{kind.__name__}, whose rounding shows up as state that is not there. Give the model that was "
                "quantised."
            )
    for tensor_name, tensor in (*model.named_parameters(), *model.named_buffers()):
        name, kind = plain_name(tensor_name), type(tensor)
        # Subclasses of torchao and others say a dtype of floating point, and bring a way back to it.
        if tensor.is_quantized or kind.dequantize is not Tensor.dequantize:
            raise ModelError(
                f"Parameter {name} must be in floating point, got {kind.__module__}.{kind.__name__} of quantised "
                "weights, whose rounding shows up as state that is not there. Give the model that was quantised."
            )
    for tensor_name, parameter in model.named_parameters():
        if not parameter.is_meta and parameter.element_size() < 2:
            raise ModelError(
                f"Parameter {plain_name(tensor_name)} is {str(parameter.dtype).removeprefix('torch.')}: quantised "
                "weights cannot be measured. Load the model in bfloat16 or float32."
            )
