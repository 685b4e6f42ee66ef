"""How a model is run to be measured, and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.masks import UNPADDED, added_to_scores, check_mask, check_windows
from statesize.adapters.models.pretrained import pretrained_models
from statesize.adapters.models.quantised import check_not_quantised
from statesize.adapters.models.wrapped import uncompiled
from statesize.check import require_kind
from statesize.errors import InputError, ModelError

Inputs = Tensor | Mapping[str, Any]
HOW_TO_GIVE = 'Give what the tokenizer returns with return_tensors="pt".'


@contextmanager
def measuring(model: nn.Module) -> Generator[None]:
    """Hold a model as it is measured: eval mode, no gradients, no autocast, uncompiled.

    Modes, random state and what modules keep of a run in attributes of their own are as before when this closes.

    Args:
        model: Any module.

    Yields:
        Nothing.
    """
    device = device_of(model)
    with ExitStack() as stack:
        stack.enter_context(
            torch.random.fork_rng(  # pyright: ignore[reportUnknownArgumentType]
                [device] if device.type == "cuda" else []
            )
        )
        stack.enter_context(uncompiled())
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(evaluating(model))
        stack.enter_context(_kept_attributes(model))
        yield


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Hold a module in eval mode.

    Args:
        model: Any module.

    Yields:
        Nothing.
    """
    # One flag a module: model.train(True) would also switch on parts that were frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _kept_attributes(model: nn.Module) -> Generator[None]:
    # RecurrentGemma keeps its last states in attributes, rotary embeddings keep the frequencies of the last length.
    def tensors(module: nn.Module) -> dict[str, Tensor | None]:
        return {name: value for name, value in vars(module).items() if value is None or isinstance(value, Tensor)}

    before = [(module, tensors(module), dict(_buffers(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).update(attributes)
            _buffers(module).update(buffers)


def _buffers(module: nn.Module) -> dict[str, Tensor | None]:
    return vars(module)["_buffers"]


def run_model(model: nn.Module, inputs: Inputs) -> Any:
    """One forward pass without a cache.

    Args:
        model: Any module.
        inputs: Token ids (S, L), or a mapping such as a tokenizer returns; moved to the model's device.

    Returns:
        What the model returns.
    """
    device = device_of(model)
    options: dict[str, Any] = {"use_cache": False} if _accepts(model, "use_cache") else {}
    if isinstance(inputs, Mapping):
        return model(**_given(model, inputs, device) | options)
    return model(inputs.to(device), **options)


def last_hidden_state(backbone: nn.Module, inputs: Inputs) -> Tensor | None:
    """What a forward pass computes, before the output layer where the model is one of transformers.

    Args:
        backbone: What `backbone_of` gives.
        inputs: As for `run_model`.

    Returns:
        The last hidden state (S, L, d) of a model of transformers; what any other module returns first, such as
        logits, or None where that is no tensor.
    """
    output = run_model(backbone, inputs)
    hidden: object = getattr(output, "last_hidden_state", None)
    return hidden if isinstance(hidden, Tensor) else _first_tensor(output)


def _first_tensor(output: object) -> Tensor | None:
    """The logits of what a model returned, or its first tensor; None where what comes first is none."""
    if isinstance(output, tuple):
        output = next(iter(cast("tuple[object, ...]", output)), None)
    logits: object = getattr(output, "logits", output)
    return logits if isinstance(logits, Tensor) else None


def backbone_of(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The part of a model that computes its last hidden state.

    Args:
        model: Any module, without hooks of the measurement.
        inputs: What its forward takes.

    Returns:
        The part, or the model itself where it is none of transformers, or where a derived class, hooks or a forward of
        its own may do something around that part.
    """
    own = type(model).__module__.startswith("transformers.models.") and "forward" not in vars(model)
    hooked = vars(model)["_forward_hooks"] or vars(model)["_forward_pre_hooks"]
    if model not in pretrained_models(model)[:1] or not own or hooked:
        return model
    inner = cast("Any", model).base_model
    names = set(inputs) - {"labels"} if isinstance(inputs, Mapping) else ()
    return inner if all(_accepts(inner, name) for name in names) else model


def _given(model: nn.Module, inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    given = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    labels = inspect.signature(model.forward).parameters.get("labels")
    if labels is None or labels.default is not inspect.Parameter.empty:
        # They ask for a loss, which takes the logits of every position.
        given.pop("labels", None)
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 4 and pretrained_models(model):
        given["attention_mask"] = added_to_scores(mask)
    return given


def _accepts(model: nn.Module, name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    if name in parameters:
        return True
    # A wrapper hands what it does not know to the transformers model inside.
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return False
    wrapped = pretrained_models(model)
    return bool(wrapped) and (wrapped[0] is not model or inspect.Parameter.VAR_POSITIONAL in kinds)


def token_count(inputs: Inputs) -> int:
    """Positions of the text.

    Args:
        inputs: What `check_inputs` accepts.

    Returns:
        L.
    """
    ids = inputs.get("input_ids", inputs.get("inputs_embeds")) if isinstance(inputs, Mapping) else inputs
    return cast("Tensor", ids).shape[1]


def device_of(model: nn.Module) -> torch.device:
    """The device on which a model takes its input.

    Args:
        model: Any module.

    Returns:
        That of its first parameter or buffer, or the CPU.
    """
    tensor = next(model.parameters(), None)
    if tensor is None:
        tensor = next(model.buffers(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def check_model(model: nn.Module) -> None:
    """Refuse what cannot be run or would not be the model's own numbers.

    Args:
        model: Any module.

    Raises:
        ModelError: An encoder–decoder, a model on the meta device, or quantised weights.
    """
    require_kind("model", model, nn.Module, "a torch module")
    for part in pretrained_models(model):
        if part.config.is_encoder_decoder:
            raise ModelError(
                f"{type(part).__name__} is an encoder–decoder model; statesize measures causal language models. Load a "
                "decoder, such as one of AutoModelForCausalLM."
            )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"Parameter {name} is on the meta device, so the model has no weights; load them with from_pretrained "
                "or move the model with to_empty() and fill it."
            )
    check_not_quantised(model)


def check_inputs(model: nn.Module, inputs: Inputs) -> None:
    """Refuse what is no whole text of one length.

    Args:
        model: The model that will be given it.
        inputs: Token ids, or a mapping such as a tokenizer returns.

    Raises:
        InputError: Less than two tokens, padding, or a cache of earlier text.
    """
    if not isinstance(inputs, Mapping):
        ids: object = inputs
    else:
        cache = [name for name in ("past_key_values", "cache_params", "state") if inputs.get(name) is not None]
        if cache:
            raise InputError(f"{cache[0]} was given; statesize measures a whole text at once, so leave the cache out.")
        ids = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if not isinstance(ids, Tensor) or ids.ndim < 2:
        what = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"input_ids must be a tensor of shape (sequences, positions), got {what}. {HOW_TO_GIVE}")
    if ids.is_meta or not ids.shape[0]:
        raise InputError(f"input_ids hold nothing: shape {tuple(ids.shape)} on device {ids.device}.")
    if ids.shape[1] < 2:
        raise InputError(f"The text has {ids.shape[1]} tokens; at least 2 are needed, for a past and a future.")
    if isinstance(inputs, Mapping):
        check_mask(mask := inputs.get("attention_mask"), ids.shape[1])
        for part in pretrained_models(model):
            check_windows(part.config.get_text_config(), mask, ids.shape[1])
    _check_padding(model, ids)


def _check_padding(model: nn.Module, ids: Tensor) -> None:
    for part in pretrained_models(model)[:1]:
        pad = getattr(part.config.get_text_config(), "pad_token_id", None)
        if pad is None or ids.ndim != 2 or ids.is_floating_point():
            continue
        # A single one may be a mark at a text's border, which many models write with the token for padding.
        padded = (ids == pad)[:, [0, 1, -2, -1]]
        if bool((padded[:, :2].all(1) | padded[:, 2:].all(1)).any()):
            raise InputError(f"input_ids begin or end with several padding tokens (id {pad}); {UNPADDED}")
