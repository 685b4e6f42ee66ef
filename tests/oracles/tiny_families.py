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
from oracles.tiny_settings import ASSISTANT, ASSISTANTS, COMMON, LOUDER, PATTERNS, ROPE, SPECIAL, TOKENS
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LENGTH = 23

# The families that people use most.
SHORT = tuple(
    "llama mistral qwen2 qwen3 qwen3_moe gemma gemma2 gemma3_text gpt2 phi phi3 olmo2 deepseek_v3 deepseek_v32 "
    "deepseek_v4 glm4_moe gpt_oss mamba mamba2 falcon_h1 qwen3_next granite_swa granitemoehybrid diffllama zamba2 "
    "nemotron_h jamba bamba lfm2 kimi_linear minimax recurrent_gemma rwkv xlstm bloom falcon opt mpt gptj gpt_neo "
    "cohere2 llama4_text".split()
)

_SECTIONS = {"text_config": {"rope_parameters": ROPE}}
_SOURCES = {"num_hidden_layers": 4, "indexer_types": ["full", "shared"] * 2}
_SOURCES |= {"no_rope_layers": [1, 1, 0, 1], "kv_source_layers": [0, 0, 2, 3]}

# Classes beyond the registry: their names in transformers and what they need besides.
_BEYOND: dict[str, tuple[str, dict[str, Any]]] = {
    "llama without a head": ("LlamaModel", {}),
    "gpt2 without a head": ("GPT2Model", {}),
    "gpt2 with two heads": ("GPT2DoubleHeadsModel", {}),
    "openai-gpt without a head": ("OpenAIGPTModel", {}),
    "falcon with biases": ("FalconForCausalLM", {"alibi": True, "num_kv_heads": 1}),
    "falcon with groups": ("FalconForCausalLM", {"new_decoder_architecture": True, "num_kv_heads": 1}),
    "gemma3": ("Gemma3ForConditionalGeneration", {}),
    "idefics3": ("Idefics3ForConditionalGeneration", {}),
    "internvl": ("InternVLForConditionalGeneration", {}),
    "llava": ("LlavaForConditionalGeneration", {}),
    "mistral3": ("Mistral3ForConditionalGeneration", {}),
    "mistral4": ("Mistral4ForCausalLM", {}),
    "mistral_large4": ("MistralLarge4ForConditionalGeneration", {"text_config": _SOURCES}),
    "mistral_large4_text": ("MistralLarge4TextModel", _SOURCES),
    "mllama": ("MllamaForConditionalGeneration", SPECIAL["mllama"]),
    "paligemma": ("PaliGemmaForConditionalGeneration", {}),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", _SECTIONS),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", _SECTIONS),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", _SECTIONS),
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", {}),
    "smolvlm": ("SmolVLMForConditionalGeneration", {}),
}


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


def tiny(family: str) -> nn.Module:
    """The causal language model of a family, tiny and random, in eval mode."""
    config_class = transformers.CONFIG_MAPPING[family]
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family])
    special = SPECIAL.get(family, {})
    if family in ASSISTANTS:
        text_class = transformers.CONFIG_MAPPING[ASSISTANTS[family]]
        text = text_class(**settings(text_class, ASSISTANT))
        return random_model(model_class, config_class(text_config=text, backbone_hidden_size=24))
    for name in ("text_config", "decoder"):  # the part that the model is a model of, where it is not the whole
        part = getattr(config_class(), name, None) if model_class.config_class is not config_class else None
        if type(part) is model_class.config_class:
            config_class, special = type(part), special.get(name, {})
    config = config_class(**settings(config_class, special))
    if family == "gemma3n":  # its vision tower is a model of timm, which reads no text
        object.__setattr__(config, "vision_config", _plain_vision(config.vision_config))  # past the check of its type
    return random_model(model_class, config, LOUDER.get(family, 1.0))


def beyond(class_name: str, special: dict[str, Any]) -> nn.Module:
    """A model of a class that the registry of causal language models lacks."""
    model_class = getattr(transformers, class_name)
    config_class = model_class.config_class
    louder = next((size for name, size in LOUDER.items() if class_name.startswith(name)), 1.0)
    return random_model(model_class, config_class(**settings(config_class, special)), louder)


MORE: dict[str, Callable[..., nn.Module]] = {
    name: partial(beyond, class_name, special)
    for name, (class_name, special) in _BEYOND.items()
    if hasattr(transformers, class_name)
}


def answers(model: nn.Module, ids: Tensor) -> Tensor:
    """What a model says of each position: logits, or hidden states where it has no head."""
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=False)
    return output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state


def random_model(model_class: type[Any], config: Any, louder: float = 1.0) -> nn.Module:
    """A model with weights large enough for attention to be far from uniform, and `louder` times that."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class._from_config(config, experts_implementation="eager").eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if spread := _spread(name, parameter):
                    parameter.normal_(std=louder * spread)
    return model


def _spread(name: str, parameter: Tensor) -> float:
    """The standard deviation to draw a parameter with, or 0 to leave it as it is."""
    last = name.rpartition(".")[2]
    if last in ("sinks", "temp", "A"):  # zero or nearly so in every head to begin with; A is doge's, temp zaya's
        return 1.0
    # Decays, which are spread on purpose, and biases that make steps small: drawn, states would hardly last.
    kept = last in ("A_log", "D", "dt_bias", "dt_proj_bias") or name.endswith("dt_proj.bias")
    if kept or ("embed_positions" in name and not parameter.requires_grad):  # sines
        return 0.0
    if parameter.ndim >= 2:
        return max(0.2, parameter.shape[-1] ** -0.5)
    return 0.2 if last == "bias" else 0.0


def _plain_vision(config: Any) -> Any:
    """A vision configuration of transformers itself, with what the text model reads of another."""
    plain = transformers.SiglipVisionConfig(**settings(transformers.SiglipVisionConfig, {}))
    for name in ("vocab_size", "vocab_offset", "rms_norm_eps"):
        setattr(plain, name, getattr(config, name))
    return plain
