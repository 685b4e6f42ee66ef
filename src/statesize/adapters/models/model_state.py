"""A model as it is held: its wrappers, parts and their names, and what its forward takes."""

from __future__ import annotations

import copy
import hashlib
import inspect
import sys
from collections import UserDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statesize.check import require_kind
from statesize.errors import InputError, ModelError


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer, or the CPU."""
    tensor = next(model.parameters(), None)
    if tensor is None:
        tensor = next(model.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A value with a function applied to what its tuples, lists, dicts and dataclasses hold, however deep."""
    kind = cast("Any", type(cast("object", value)))
    if isinstance(value, dict):
        parts = {key: mapped(part, function) for key, part in cast("dict[Any, Any]", value).items()}
        # What models of transformers return, and take as `encoder_outputs`, is more than a mapping.
        return kind(**parts) if hasattr(kind, "to_tuple") else parts
    if isinstance(value, UserDict):
        # Keys and values that layers hand on to later ones.
        return kind(mapped(cast("Any", value).data, function))
    if type(value) in (tuple, list):
        return type(value)(mapped(part, function) for part in value)
    if hasattr(kind, "_fields"):
        # Not by the class, whose own checks may take other arguments, as those of packed sequences.
        return kind._make(mapped(part, function) for part in value)
    if is_dataclass(value) and not isinstance(value, nn.Module | type):
        changed = copy.copy(value)
        for part in fields(value):
            object.__setattr__(changed, part.name, mapped(getattr(value, part.name), function))
        return changed
    return function(value)


def tensors_in(value: object, *, real: bool = True) -> list[Tensor]:
    """The tensors in what `mapped` opens, in order: those of real numbers, or all."""
    leaves: list[object] = []
    mapped(value, leaves.append)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and (leaf.is_floating_point() or not real)]


def position_axis(tensor: Tensor, length: int) -> int | None:
    """The dimension of positions, of a tensor of hidden states, heads or ids; None where none has their number."""
    order = {1: (0,), 2: (1, 0), 3: (1, 0, 2), 4: (2, 1, 3)}.get(tensor.ndim, ())
    return next((axis for axis in order if tensor.shape[axis] == length), None)


def entering_tensor(arguments: object, length: int) -> Tensor | None:
    """The first tensor of real numbers with positions among what a module is called with."""
    tensors = (tensor for tensor in tensors_in(arguments) if tensor.ndim > 1)
    return next((tensor for tensor in tensors if position_axis(tensor, length) is not None), None)


def returned_tensor(output: object, arguments: object, length: int) -> Tensor | None:
    """What a module returns in the shape of what enters, side by side; else the first tensor, if any with positions."""
    tensors = tensors_in(output)
    if len(tensors) < 2:
        return next(iter(tensors), None)
    entering = entering_tensor(arguments, length)
    alike = [] if entering is None else [tensor for tensor in tensors if tensor.shape == entering.shape]
    if len(alike) > 1 and alike[0].shape[-2:] == (length, length):
        # As many channels as positions: causal maps of attention that are returned beside are no second stream.
        alike = [tensor for tensor in alike if bool(tensor.triu(1).any())] or alike[:1]
    if len(alike) > 1 and alike[0].ndim > 2:
        return torch.cat(alike, 1 if position_axis(alike[0], length) == alike[0].ndim - 1 else -1)
    placed = [tensor for tensor in tensors if position_axis(tensor, length) is not None]
    return next(iter(alike or placed or tensors), None)


def known_options(model: nn.Module | type, **options: Any) -> dict[str, Any]:
    """Those of some arguments that the forward method of a model knows."""
    parameters = inspect.signature(cast("Any", model).forward).parameters
    return {name: value for name, value in options.items() if name in parameters}


# Parts of module names that only say that something is held: by torch.compile, TransformerLens, checkpointing, Fabric.
MARKS = frozenset({"_orig_mod", "_original_component", "_checkpoint_wrapped_module", "_forward_module"})


def unwrapped(model: object) -> nn.Module:
    """The model inside what holds it, with its adapters as they are."""
    while inside := next((inside for package, names, inside in _HOLDERS if is_a(model, names, package)), None):
        model = inside(model)
    held = [name for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, nn.Module)]
    if held and not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch module, got {type(model).__name__}. Give its attribute {held[0]}.")
    require_kind("model", model, nn.Module, "a torch module", "Give one, or where a name is loaded, the name as text.")
    return cast("nn.Module", model)


def check_parts(parts: NamedModules) -> None:
    """Refuse parts of a model, by their names, that do not run as Python, as what torch.jit and torch.export make."""
    for name, part in parts:
        # That module has an `eval` of its own, which refuses.
        graph = is_a(part, ("GraphModule",), "torch") and "eval" in vars(part)
        if graph or isinstance(part, torch.jit.ScriptModule) or is_a(part, ("UnflattenedModule",), "torch"):
            raise ModelError(
                f"Module {name or type(part).__name__} must run as Python, got {type(part).__name__}, in which no "
                "mixer can be seen. Give the module that was traced, scripted or exported."
            )


NamedModules = Sequence[tuple[str, nn.Module]]
"""The modules of a model or of a part of it, itself first, by name in the model: whoever walks them hands them on."""


def named_parts(model: nn.Module, name: str = "") -> NamedModules:
    """The modules of a model, itself included, or of a module of this name in it, named as where nothing holds them."""
    named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules(prefix=name))
    return [(".".join(part for part in path.split(".") if part not in MARKS), module) for path, module in named]


def pretrained_models(parts: NamedModules) -> list[Any]:
    """The transformers models among the modules of one, outermost first."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:
        return []
    return [module for _, module in parts if isinstance(module, library.PreTrainedModel)]


def adapter_states(model: nn.Module) -> dict[str, object]:
    """What decides on the numbers of layers with adapters of peft beside their weights."""
    return {
        name: [layer.active_adapters, layer.merged_adapters, layer.disable_adapters, getattr(layer, "scaling", None)]
        for name, layer in cast("Iterator[tuple[str, Any]]", model.named_modules())
        if is_a(layer, ("BaseTunerLayer",), "peft")
    }


def _with_adapters(model: Any) -> nn.Module:
    tuner, active = model.base_model, model.active_adapter
    configs = [model.peft_config[name] for name in ([active] if isinstance(active, str) else active)]
    # Only what these run is the model inside, called with the same arguments; some add to the loss of training.
    hands_on = {"BaseTuner.forward", "AdaLoraModel.forward", "ShadowModel.forward"}
    alike = getattr(tuner.forward, "__qualname__", "") in hands_on or tuner.forward == tuner.model.forward
    # Prompts are positions before the text, and invocation tokens decide where an adapter acts.
    settings = ("is_prompt_learning", "alora_invocation_tokens")
    if alike and not any(getattr(config, name, None) for config in configs for name in settings):
        return cast("nn.Module", tuner.model)
    kinds = ", ".join(str(getattr(config.peft_type, "value", config.peft_type)) for config in configs)
    raise ModelError(
        f"model must hold its adapter in its layers, as LoRA does, got {type(model).__name__} with {kinds}, which "
        "may do more than run the model inside. Give the model that it was made for, loaded without it."
    )


# Package, classes, and what returns the model inside that does the same.
_HOLDERS: tuple[tuple[str, tuple[str, ...], Callable[[Any], object]], ...] = (
    ("torch", ("OptimizedModule",), attrgetter("_orig_mod")),
    ("torch", ("DataParallel", "DistributedDataParallel"), attrgetter("module")),
    ("nnsight", ("Envoy",), attrgetter("_module")),
    ("transformer_lens", ("TransformerBridge",), attrgetter("original_model")),
    ("peft", ("PeftModel", "PeftMixedModel"), _with_adapters),
)


def is_a(value: object, classes: Collection[str], package: str = "") -> bool:
    """Whether an object's class, or one that it derives from, has one of some names, in a package if that is named."""
    named = (kind for kind in type(value).__mro__ if kind.__name__ in classes)
    return any(not package or kind.__module__.split(".")[0] == package for kind in named)


def token_embedding(model: Any) -> object:
    """What a model of transformers says looks up its token ids; None where its class does not say."""
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def tensors_sha256(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """SHA-256 of names, dtypes, shapes and bytes of tensors, and of a text, as 64 hexadecimal digits."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        # Not `tobytes`: a copy takes as long as the digest, and as much memory as an embedding.
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Computed(TorchFunctionMode):
    """Lets copies have the values of tensors that were computed, such as weights by `weight_norm`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, with what stands in a memo in place of what has its id."""
    with _Computed():
        return copy.deepcopy(module, memo)
