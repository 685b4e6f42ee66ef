"""What is refused before anything runs: models that cannot be measured, and inputs that are no whole text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import pretrained_models, unwrapped
from statesize.adapters.models.quantised import dequantised
from statesize.adapters.models.sharded import check_sharding
from statesize.check import refuse, whole_number
from statesize.errors import InputError, ModelError

UNPADDED = "give texts of different length one after another, without it."
# What is added to scores to hide a position: -inf, the least number of a dtype, or -1e4 as in older models.
HIDING = -1e4


def check_mask(mask: object, length: int, name: str = "attention_mask") -> None:
    """Refuse a mask that hides a part of the text, or shows later positions."""
    if not isinstance(mask, Tensor):
        raise InputError(
            f"{name} must be a tensor, got {type(mask).__name__}. Give what the tokenizer returns with "
            'return_tensors="pt", or leave it out.'
        )
    if mask.ndim == 4:
        _check_causal(mask, length)
    elif not bool(mask.all()):
        raise InputError(f"{name} marks padding; {UNPADDED}")


def added_to_scores(mask: Tensor) -> Tensor:
    """A mask of four dimensions that was checked, as every attention of transformers takes it."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~_seen(mask), torch.finfo(torch.float32).min)


def check_windows(config: Any, length: int) -> None:
    """Refuse a mask of four dimensions for a model that makes narrower ones, because it would replace them."""
    for name in ("sliding_window", "attention_chunk_size"):
        window: object = getattr(config, name, None)
        if isinstance(window, int) and window < length:
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
    # Weights on the meta device and models that round more than their weights are refused.
    module = unwrapped(model)
    for name, parameter in module.named_parameters():
        if parameter.is_meta and any("_hf_hook" in vars(part) for part in module.modules()):
            raise ModelError(
                f"Parameter {name} is offloaded by accelerate, which brings weights in for one layer at a time, so "
                "statesize cannot read them. Load the model without device_map and offloading; one that was whole "
                "before it was offloaded is brought back by accelerate.hooks.remove_hook_from_module(model, "
                "recurse=True)."
            )
        if parameter.is_meta:
            raise ModelError(
                f"Parameter {name} is on the meta device, so the model has no weights; load them with from_pretrained "
                "or move the model with to_empty() and fill it."
            )
    check_sharding(module)
    return dequantised(module)


# What the decoder of an encoder–decoder reads, before what its encoder reads.
DECODED = ("decoder_input_ids", "decoder_inputs_embeds", "decoder_input_values", "future_values")
_TOKENS = ("input_ids", "decoder_input_ids")


@dataclass(frozen=True)
class Measured:
    """Whose positions are measured.

    Attributes:
        name: The argument of the model that holds them; "" for a tensor that is given alone.
        axis: Their dimension there, or None where frames of three dimensions do not tell before the model runs;
            sequences lie on dimension 0, or on 1 where this is 0.
        shape: Its shape.
    """

    name: str
    axis: int | None
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of positions."""
        return self.shape[1 if self.axis is None else self.axis]

    @property
    def decodes(self) -> bool:
        """Whether a decoder reads them, and an encoder what the other arguments hold."""
        return self.name in DECODED

    @property
    def sequence_axis(self) -> int:
        """The dimension of sequences."""
        return int(self.axis == 0)

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return self.shape[self.sequence_axis]


def check_inputs(model: nn.Module, inputs: Inputs, axis: int | None = None) -> Measured:
    """Refuse what is no whole text of one length for the models of transformers in a model; what is measured of it."""
    pretrained = pretrained_models(model)
    name = _measured_argument(model, pretrained, inputs)
    values = cast("object", inputs.get(name) if isinstance(inputs, Mapping) else inputs)
    shown = name or ("inputs" if isinstance(values, Tensor) and values.ndim > 2 else "input_ids")
    if isinstance(inputs, Mapping) and (cache := next((one for one in CACHES if inputs.get(one) is not None), None)):
        raise InputError(f"{cache} must be left out, got one: statesize measures a whole text at once.")
    if not isinstance(values, Tensor) or values.ndim < 2:
        what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{shown} must be a tensor of shape (sequences, positions), got {what}. {HOW_TO_GIVE}")
    if values.is_meta or not values.shape[0]:
        raise InputError(f"{shown} must hold numbers, got shape {tuple(values.shape)} on device {values.device}.")
    main = getattr(next(iter(pretrained), None), "main_input_name", "")
    whole = model in pretrained[:1] and main in _TOKENS
    if values.ndim > 2 and values.is_floating_point() and (name in _TOKENS or (not name and whole)):
        raise InputError(
            f"inputs must be token ids for {type(model).__name__}, got frames of shape {tuple(values.shape)}. Give "
            'embeddings as {"inputs_embeds": …}, or call ss.capture with the layers that take frames.'
        )
    tokens = values.ndim == 2 and (name in _TOKENS or (not name and main in _TOKENS))
    if tokens and pretrained:
        # An encoder may read other tokens than the decoder.
        reader = pretrained[0].get_decoder() if name in DECODED else pretrained[0]
        _check_ids(shown, values, reader.get_input_embeddings())
    measured = Measured(name, _axis(shown, values, axis), tuple(values.shape))
    length, what = measured.length, "positions" if values.is_floating_point() else "tokens"
    if length < 2 and measured.axis is not None:
        raise InputError(f"{shown} must have at least 2 {what}, for a past and a future, got {length}.")
    masking = mask_of(measured)
    mask = inputs.get(masking) if isinstance(inputs, Mapping) else None
    if mask is not None:
        check_mask(mask, length, masking)
    configs = [part.config.get_text_config(decoder=measured.decodes or None) for part in pretrained]
    for config in configs if isinstance(mask, Tensor) and mask.ndim == 4 else ():
        check_windows(config, length)
    pad = getattr(configs[0], "pad_token_id", None) if configs else None
    if tokens and pad is not None:
        # A single one may be a mark at a text's border, which many models write with the token for padding.
        padded = (values == pad)[:, [0, 1, -2, -1]]
        if bool((padded[:, :2].all(1) | padded[:, 2:].all(1)).any()):
            raise InputError(f"{shown} begin or end with several padding tokens (id {pad}); {UNPADDED}")
    return measured


def mask_of(measured: Measured) -> str:
    """The argument that masks the measured positions."""
    return "decoder_attention_mask" if measured.decodes else "attention_mask"


def _measured_argument(model: nn.Module, pretrained: Sequence[Any], inputs: Inputs) -> str:
    """The argument whose positions are measured: what a decoder reads, tokens, or what the model takes first."""
    named: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    parameters = list(inspect.signature(model.forward).parameters)
    if model in pretrained[:1] and cast("Any", model).config.is_encoder_decoder:
        decoded = [name for name in DECODED if name in parameters]
        given = [name for name in decoded if named.get(name) is not None]
        if decoded and not given:
            read = str(getattr(model, "main_input_name", "input_ids"))
            raise InputError(
                f"inputs must hold {decoded[0]}, whose memory is measured, for {type(model).__name__}, an "
                f'encoder–decoder model. Give {{"{read}": …, "{decoded[0]}": …}}: what its encoder reads is held fixed.'
            )
        if given:
            return given[0]
    if not isinstance(inputs, Mapping):
        return ""
    first = ("input_ids", "inputs_embeds", *(str(one.main_input_name) for one in pretrained[:1]), *parameters)
    tensors = (name for name, value in named.items() if isinstance(value, Tensor))
    return next(
        (name for name in (*first, *tensors) if named.get(name) is not None and "mask" not in name), "input_ids"
    )


def _axis(name: str, values: Tensor, axis: int | None) -> int | None:
    """The dimension of positions that is named or plain; None where the modules of the model have to tell."""
    if axis is not None:
        number = whole_number(axis)
        if number is None or not -values.ndim <= number < values.ndim:
            refuse("axis", f"a dimension of {name}, which has shape {tuple(values.shape)}", axis)
        return number % values.ndim
    if values.ndim != 3 or name.endswith("embeds"):
        return 1
    if values.is_floating_point():
        return None
    raise InputError(
        f"axis must name the dimension of positions of {name}, integers of shape {tuple(values.shape)}, got None. Give "
        "axis=1 for (sequences, positions, codes) or axis=2 for (sequences, codes, positions)."
    )


def _check_ids(name: str, ids: Tensor, embedding: object) -> None:
    """Refuse what are no ids of an embedding's tokens."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"{name} must be integers, got dtype {ids.dtype}. {HOW_TO_GIVE}")
    known = getattr(embedding, "num_embeddings", None)
    if isinstance(known, int) and not bool(((ids >= 0) & (ids < known)).all()):
        wrong = ids[(ids < 0) | (ids >= known)][0].item()
        raise InputError(
            f"{name} must be from 0 to {known - 1}, the tokens that the model knows, got {wrong}. Make the ids with "
            "the tokenizer that the model was trained with."
        )
