"""A tiny random model of every family of causal language models in transformers, built for mistakes to show.

Three heads of eight, one key for all of them where the family shares keys, windows shorter than the text, and every
kind of layer that the family has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from oracles.tiny_settings import ASSISTANT, ASSISTANTS, BEYOND, COMMON, PATTERNS, SHORT, SPECIAL, TOKENS
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

__all__ = ["LENGTH", "MORE", "SHORT", "answers", "names", "random_model", "settings", "tiny", "token_ids"]

LENGTH = 23


def names() -> list[str]:
    """All model types that the installed transformers has a causal language model for."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def token_ids(sequences: int = 2, length: int = LENGTH) -> Tensor:
    """Random token ids, (sequences, length), without the first three, which are special in some families."""
    return torch.randint(3, 64, (sequences, length), generator=torch.Generator().manual_seed(1))


def settings(config_class: type[Any], special: dict[str, Any]) -> dict[str, Any]:
    """What a tiny configuration of a class is made with."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(config_class)}
    given = {name: value for name, value in COMMON.items() if name in fields}
    given |= {name: None if "None" in fields[name] else 1 for name in TOKENS if name in fields}
    if "kv_lora_rank" in fields:
        given |= {"num_key_value_heads": 3}
    given |= {name: 0.0 for name in fields if "drop" in name and isinstance(getattr(config_class, name, None), float)}
    default = config_class()
    patterns = {name: list(dict.fromkeys(getattr(default, name, None) or ())) for name in PATTERNS if name in fields}
    patterns |= {name: special[name] for name in PATTERNS if name in special}
    layers = special.get("num_hidden_layers", max([2, *map(len, patterns.values())]))
    given |= {name: (kinds * layers)[:layers] for name, kinds in patterns.items() if kinds}
    given |= {name: layers for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if name in fields}
    parts = set(fields) & set(config_class.sub_configs)
    for name in parts:
        part = getattr(default, name)
        if part is not None:
            given[name] = type(part)(**settings(type(part), special.get(name, {})))
    return given | {name: value for name, value in special.items() if name not in parts}


def tiny(family: str, seed: int = 0) -> nn.Module:
    """The causal language model of a family, tiny and random, in eval mode."""
    config_class = transformers.CONFIG_MAPPING[family]
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family])
    special = SPECIAL.get(family, {})
    if family in ASSISTANTS:
        text_class = transformers.CONFIG_MAPPING[ASSISTANTS[family]]
        text = text_class(**settings(text_class, ASSISTANT))
        return random_model(model_class, config_class(text_config=text, backbone_hidden_size=24), seed)
    for name in ("text_config", "decoder"):  # the part that the model is a model of, where it is not the whole
        part = getattr(config_class(), name, None) if model_class.config_class is not config_class else None
        if type(part) is model_class.config_class:
            config_class, special = type(part), special.get(name, {})
    config = config_class(**settings(config_class, special))
    if family == "gemma3n":  # its vision tower is a model of timm, which reads no text
        object.__setattr__(config, "vision_config", _plain_vision(config.vision_config))  # past the check of its type
    return random_model(model_class, config, seed)


def beyond(class_name: str, special: dict[str, Any], seed: int = 0) -> nn.Module:
    """A model of a class that the registry of causal language models lacks."""
    model_class = getattr(transformers, class_name)
    config_class = model_class.config_class
    return random_model(model_class, config_class(**settings(config_class, special)), seed)


MORE: dict[str, Callable[..., nn.Module]] = {
    name: partial(beyond, class_name, special)
    for name, (class_name, special) in BEYOND.items()
    if hasattr(transformers, class_name)
}


def answers(model: nn.Module, ids: Tensor) -> Tensor:
    """What a model says of each position: logits, or hidden states where it has no head."""
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=False)
    return output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state


def random_model(model_class: type[Any], config: Any, seed: int = 0) -> nn.Module:
    """A model with weights large enough for attention to be far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class._from_config(config, experts_implementation="eager").eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim >= 2 and not any(kept in name for kept in ("A_log", "slope")):
                    parameter.normal_(std=0.2)
    return model


def _plain_vision(config: Any) -> Any:
    """A vision configuration of transformers itself, with what the text model reads of another."""
    plain = transformers.SiglipVisionConfig(**settings(transformers.SiglipVisionConfig, {}))
    for name in ("vocab_size", "vocab_offset", "rms_norm_eps"):
        setattr(plain, name, getattr(config, name))
    return plain
