"""Models inside the objects that hold them: compiled modules, adapters, and libraries that look into models."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from statesize.check import require_kind
from statesize.errors import InputError, ModelError

# Package, class, and the attribute under which the model lies that does the same.
HOLDERS = (
    ("torch", "OptimizedModule", "_orig_mod"),
    ("torch", "DataParallel", "module"),
    ("torch", "DistributedDataParallel", "module"),
    ("nnsight", "Envoy", "_module"),
    ("transformer_lens", "TransformerBridge", "original_model"),
)
# Parts of module names that only say that something is held: by torch.compile, TransformerLens, and checkpointing.
MARKS = frozenset({"_orig_mod", "_original_component", "_checkpoint_wrapped_module"})


def unwrapped(model: object) -> nn.Module:
    """The model inside what holds it, with its adapters as they are."""
    while (inner := _inside(model)) is not None:
        model = inner
    held = [name for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, nn.Module)]
    if held and not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch module, got {type(model).__name__}. Give its attribute {held[0]}.")
    require_kind("model", model, nn.Module, "a torch module")
    module = cast("nn.Module", model)
    for name, part in named_parts(module):
        if _is_of(part, "torch", "ScriptModule"):
            raise ModelError(
                f"Module {name or type(part).__name__} must run as Python, got TorchScript ({type(part).__name__}), in "
                "which no mixer can be seen. Give the module that was traced or scripted."
            )
    return module


def plain_name(name: str) -> str:
    """A module's name as it is where nothing holds the module."""
    return ".".join(part for part in name.split(".") if part not in MARKS)


def named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model, itself included."""
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        yield plain_name(name), module


def pretrained_models(model: nn.Module) -> list[Any]:
    """The transformers models in a module, itself included, outermost first."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:
        return []
    return [module for module in model.modules() if isinstance(module, library.PreTrainedModel)]


@contextmanager
def uncompiled() -> Generator[None]:
    """Run whatever torch.compile has made as the code that it was made from, which hooks and observers see."""
    # Nothing is compiled meanwhile, and what was compiled before stays so.
    # Without this module nothing has been compiled, and importing it takes a second.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def adapter_states(model: nn.Module) -> dict[str, object]:
    """What decides on the numbers of layers with adapters of peft beside their weights."""
    return {
        name: [layer.active_adapters, layer.merged_adapters, layer.disable_adapters, getattr(layer, "scaling", None)]
        for name, layer in cast("Iterator[tuple[str, Any]]", model.named_modules())
        if _is_of(layer, "peft", "BaseTunerLayer")
    }


def _inside(model: object) -> object:
    for package, name, attribute in HOLDERS:
        if _is_of(model, package, name):
            return getattr(model, attribute)
    if _is_of(model, "peft", "PeftModel") or _is_of(model, "peft", "PeftMixedModel"):
        return _with_adapters(model)
    return None


def _with_adapters(model: Any) -> nn.Module:
    tuner, active = model.base_model, model.active_adapter
    configs = [model.peft_config[name] for name in ([active] if isinstance(active, str) else active)]
    # Only what these run is the model inside, called with the same arguments; AdaLora adds to the loss of training.
    forward = getattr(tuner.forward, "__qualname__", "")
    hands_on = forward in {"BaseTuner.forward", "AdaLoraModel.forward"}
    if not hands_on or any(getattr(config, "alora_invocation_tokens", None) is not None for config in configs):
        kinds = ", ".join(str(getattr(config.peft_type, "value", config.peft_type)) for config in configs)
        raise ModelError(
            f"model must hold its adapter in its layers, as LoRA does, got {type(model).__name__} with {kinds}, which "
            "also changes the model's inputs. Pass model.get_base_model(), which leaves the adapter out."
        )
    return cast("nn.Module", tuner.model)


def _is_of(value: object, package: str, name: str) -> bool:
    """Whether an object's class, or one that it derives from, is called so, in a package that need not be there."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(value).__mro__)
