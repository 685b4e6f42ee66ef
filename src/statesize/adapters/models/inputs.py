"""What is refused before anything runs: models that cannot be measured, and inputs that are no whole text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from statesize.adapters.models.held import pretrained_models, unwrapped
from statesize.adapters.models.quantised import dequantised
from statesize.errors import InputError, ModelError

UNPADDED = "give texts of different length one after another, without it."
# What is added to scores to hide a position: -inf, the least number of a dtype, or -1e4 as in older models.
HIDING = -1e4


def check_mask(mask: object, length: int) -> None:
    """Refuse a mask that hides a part of the text, or shows later positions."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise InputError(
            f"attention_mask must be a tensor, got {type(mask).__name__}. Give what the tokenizer returns with "
            'return_tensors="pt", or leave it out.'
        )
    if mask.ndim == 4:
        _check_causal(mask, length)
    elif not bool(mask.all()):
        raise InputError(f"attention_mask marks padding; {UNPADDED}")


def added_to_scores(mask: Tensor) -> Tensor:
    """A mask of four dimensions that was checked, as every attention of transformers takes it."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~_seen(mask), torch.finfo(torch.float32).min)


def check_windows(config: Any, mask: object, length: int) -> None:
    """Refuse a mask of four dimensions for a model that makes narrower ones, because it would replace them."""
    for name in ("sliding_window", "attention_chunk_size"):
        window: object = getattr(config, name, None)
        if isinstance(mask, Tensor) and mask.ndim == 4 and isinstance(window, int) and window < length:
            raise InputError(
                f"attention_mask must have 2 dimensions where the model has {name}={window}, got 4, which would take "
                "its windows. Leave it out: the model masks by itself."
            )


def _seen(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask == 0


def _check_causal(mask: Tensor, length: int) -> None:
    form = "attention_mask must be the plain causal mask where it has 4 dimensions"
    way_out = "Leave it out: a causal model hides later positions by itself."
    if tuple(mask.shape[-2:]) != (length, length):
        raise InputError(f"{form}, got shape {tuple(mask.shape)} for {length} positions. {way_out}")
    # Integers would be added to the scores as they are.
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(f"{form}, boolean or added to scores, got {mask.dtype}. {way_out}")
    seen = _seen(mask)
    if mask.dtype != torch.bool and not bool((seen | (mask <= HIDING)).all()):
        raise InputError(f"{form}, got numbers other than 0 and below {HIDING:g}. {way_out}")
    wrong = seen != torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    if bool(wrong.any()):
        *_, query, key = (int(index) for index in wrong.nonzero()[0])
        if key > query:
            raise InputError(f"{form}, got one by which position {query} sees the later position {key}. {way_out}")
        raise InputError(
            f"{form}, got one by which position {query} does not see position {key}: padding, a window "
            f"or several texts in one. Leave it out; {UNPADDED}"
        )


Inputs = Tensor | Mapping[str, Any]
HOW_TO_GIVE = 'Give what the tokenizer returns with return_tensors="pt".'
CACHES = ("past_key_values", "cache_params", "state")


def measurable(model: object) -> nn.Module:
    """The module that runs in what holds it, with weights in floating point; as `float_model` without how they were."""
    return float_model(model)[0]


def float_model(model: object) -> tuple[nn.Module, str]:
    """The module that runs in what holds it, or a dequantised copy, and how its weights are stored if quantised."""
    # Encoder–decoders, weights on the meta device and models that round more than their weights are refused.
    module = unwrapped(model)
    for part in pretrained_models(module):
        if part.config.is_encoder_decoder:
            raise ModelError(
                f"{type(part).__name__} is an encoder–decoder model; statesize measures causal language models. Load a "
                "decoder, such as one of AutoModelForCausalLM."
            )
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"Parameter {name} is on the meta device, so the model has no weights; load them with from_pretrained "
                "or move the model with to_empty() and fill it."
            )
    return dequantised(module)


def _check_ids(ids: Tensor, embedding: object) -> None:
    """Refuse what are no ids of an embedding's tokens."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"input_ids must be integers, got dtype {ids.dtype}. {HOW_TO_GIVE}")
    known = getattr(embedding, "num_embeddings", None)
    if isinstance(known, int) and not bool(((ids >= 0) & (ids < known)).all()):
        wrong = ids[(ids < 0) | (ids >= known)][0].item()
        raise InputError(
            f"input_ids must be from 0 to {known - 1}, the tokens that the model knows, got {wrong}. Make the ids with "
            "the tokenizer that the model was trained with."
        )


def check_inputs(pretrained: Sequence[Any], inputs: Inputs) -> int:
    """Refuse what is no whole text of one length for these models of transformers; the number of its positions."""
    mask: object = None
    ids: object = inputs
    if isinstance(inputs, Mapping):
        cache = next((name for name in CACHES if inputs.get(name) is not None), None)
        if cache:
            raise InputError(f"{cache} must be left out, got one: statesize measures a whole text at once.")
        ids, mask = inputs.get("input_ids", inputs.get("inputs_embeds")), inputs.get("attention_mask")
    if not isinstance(ids, Tensor) or ids.ndim < 2:
        what = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"input_ids must be a tensor of shape (sequences, positions), got {what}. {HOW_TO_GIVE}")
    if ids.is_meta or not ids.shape[0]:
        raise InputError(f"input_ids must hold numbers, got shape {tuple(ids.shape)} on device {ids.device}.")
    if pretrained and ids.ndim == 2:
        _check_ids(ids, pretrained[0].get_input_embeddings())
    length = ids.shape[1]
    if length < 2:
        raise InputError(f"The text must have at least 2 tokens, for a past and a future, got {length}.")
    check_mask(mask, length)
    configs = [part.config.get_text_config() for part in pretrained]
    for config in configs:
        check_windows(config, mask, length)
    pad = getattr(configs[0], "pad_token_id", None) if configs else None
    if pad is not None and ids.ndim == 2 and not ids.is_floating_point():
        # A single one may be a mark at a text's border, which many models write with the token for padding.
        padded = (ids == pad)[:, [0, 1, -2, -1]]
        if bool((padded[:, :2].all(1) | padded[:, 2:].all(1)).any()):
            raise InputError(f"input_ids begin or end with several padding tokens (id {pad}); {UNPADDED}")
    return length
