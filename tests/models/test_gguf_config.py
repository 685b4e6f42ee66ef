"""A GGUF file is the model that it was made from, logit for logit, or it is refused in words."""

import math
import re

import numpy as np
import pytest
import torch
import transformers
from models.gguf_files import LLAMA_KEYS, permuted, write_model
from oracles.pretrained import tiny_llama

import statesize as ss

TOKENS = 300
IDS = torch.randint(5, TOKENS, (1, 90), generator=torch.Generator().manual_seed(1))
COMMON = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def made(family, **settings):
    """A model whose every weight shows in its logits."""
    config = getattr(transformers, f"{family}Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.1 * noise if weight.ndim == 1 else 2 * noise / math.sqrt(weight.shape[-1]))
    return model


def weights_of(model):
    tied = model.config.tie_word_embeddings
    return {name: weight for name, weight in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def rope(**parameters):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0} | parameters}


def keys(value=1e-6, **changes):
    """What a file says of the common settings."""
    said = LLAMA_KEYS | {"feed_forward_length": 48, "attention.layer_norm_rms_epsilon": value}
    return said | {key.replace("__", "."): change for key, change in changes.items()}


def one_more(name, values):
    return values + 1 if name.endswith("norm.weight") else values


def scaling(kind, factor, **more):
    said = {"rope__scaling__type": kind, "rope__scaling__factor": factor}
    return said | {f"rope__scaling__{key}": value for key, value in more.items()}


WINDOW = {"attention__sliding_window": 16}
HEADS_OF_GEMMA = {"attention__key_length": 256, "attention__value_length": 256}
GEMMA = COMMON | {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
TWO_HEADS = {"attention__head_count": 2, "attention__head_count_kv": 1}
YARN = rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
YARN_KEYS = scaling("yarn", 4.0, original_context_length=64)


def linear(factor):
    return rope(rope_type="linear", factor=factor)


def llama(said, **settings):
    return made("Llama", **COMMON | settings), "llama", said, {"change": permuted}


def rope_freqs():
    parameters = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
    model = made("Llama", **COMMON, **rope(rope_type="llama3", factor=8.0, **parameters))
    base = 1 / 10000 ** (torch.arange(0, 8, 2) / 8)
    factors = (base / model.model.rotary_emb.inv_freq).numpy()
    assert len(set(factors.round(3))) > 2
    return model, "llama", keys(), {"change": permuted, "extra": {"rope_freqs.weight": factors}}


def simple(family, architecture, said, change=None, **settings):
    model = made(family, **COMMON | settings)
    return model, architecture, said, {"change": change}


def gemma3(**settings):
    """A Gemma of 4B parameters or more: its far layers turn slower, by a base and a factor of their own."""
    far = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    near = {"rope_type": "default", "rope_theta": 5000.0}
    said = keys(
        block_count=3,
        **TWO_HEADS,
        **HEADS_OF_GEMMA,
        **WINDOW,
        rope__freq_base=1e6,
        rope__freq_base_swa=5000.0,
        attention__sliding_window_pattern=2,
        final_logit_softcapping=5.0,
        **scaling("linear", 8.0),
    )
    settings = GEMMA | {"num_hidden_layers": 3, "sliding_window": 16, "final_logit_softcapping": 5.0}
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    both = {"full_attention": far, "sliding_attention": near}
    model = made("Gemma3Text", **settings, rope_parameters=both, layer_types=layers)
    return model, "gemma3", said, {"change": one_more}


def wide_queries(family, architecture, layers):
    """A Gemma of 27B parameters, whose scale of queries no key states."""
    settings = COMMON | {"num_hidden_layers": layers, "head_dim": 4, "query_pre_attn_scalar": 8}
    model = made(family, **settings | {"tie_word_embeddings": True}, sliding_window=16)
    said = keys(block_count=layers, attention__key_length=4, attention__value_length=4, **WINDOW)
    if family == "Gemma3Text":
        said["rope.freq_base"] = 1e6
    return model, architecture, said, {"change": one_more}


def longrope():
    factors = [1.0, 1.5, 2.0, 8.0], [1.0, 1.0, 1.25, 1.5]
    parameters = {"long_factor": factors[0], "short_factor": factors[1], "original_max_position_embeddings": 64}
    model = made(
        "Phi3",
        **COMMON | {"vocab_size": 32064},
        original_max_position_embeddings=64,
        **rope(rope_type="longrope", **parameters),
    )
    attention = math.sqrt(1 + math.log(4) / math.log(64))
    said = keys(
        value=1e-5,
        vocab_size=32064,
        rope__dimension_count=8,
        rope__scaling__original_context_length=64,
        rope__scaling__attn_factor=attention,
    )
    names = ("rope_factors_long.weight", "rope_factors_short.weight")
    tables = {name: np.array(table, np.float32) for name, table in zip(names, factors, strict=True)}
    return model, "phi3", said, {"extra": tables}


def apart(model):
    """The weights with experts as a file holds them, gates apart from what they let through, and names for these."""
    weights, names = {}, {}
    for name, weight in weights_of(model).items():
        layer = name.split(".")[2] if ".layers." in name else ""
        if name.endswith("gate_up_proj"):
            for part, half in zip(("gate", "up"), weight.chunk(2, 1), strict=True):
                weights[f"{name} {part}"], names[f"{name} {part}"] = half, f"blk.{layer}.ffn_{part}_exps.weight"
            continue
        if name.endswith("experts.down_proj"):
            names[name] = f"blk.{layer}.ffn_down_exps.weight"
        if "e_score" in name:
            names[name] = f"blk.{layer}.exp_probs_b.bias"
        weights[name] = weight
    return {"weights": weights, "names": names}


def experts(family, architecture, said, **settings):
    model = made(family, **COMMON | settings)

    def change(name, values):
        return values[0] if "gate_inp_shexp" in name else values

    return model, architecture, said | {"expert_count": 4, "expert_used_count": 2}, apart(model) | {"change": change}


def lfm2():
    layers = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False}
    model = made("Lfm2", **COMMON | {"tie_word_embeddings": True}, **layers, **rope())

    def change(name, values):
        return values[:, 0] if "shortconv.conv" in name else values

    said = keys(value=model.config.norm_eps, shortconv__l_cache=3, attention__head_count_kv=[0, 2])
    names = {"model.embedding_norm.weight": "token_embd_norm.weight"}
    return model, "lfm2", said, {"change": change, "names": names}


PHI = {"vocab_size": 32064, "sliding_window": 16, "partial_rotary_factor": 0.75}
CASES = {
    "factors of llama3": rope_freqs,
    "linear": lambda: llama(keys(**scaling("linear", 4.0)), **linear(4.0)),
    "yarn": lambda: llama(keys(**YARN_KEYS), **YARN),
    "heads": lambda: llama(keys(attention__key_length=16, attention__value_length=16), head_dim=16),
    "named mistral": lambda: llama(keys(general__name="mistral")),
    "qwen2": lambda: simple("Qwen2", "qwen2", keys(**YARN_KEYS), **YARN),
    "qwen3": lambda: simple("Qwen3", "qwen3", keys(), head_dim=8),
    "qwen3moe": lambda: experts(
        "Qwen3Moe",
        "qwen3moe",
        keys(expert_feed_forward_length=16),
        **{
            "moe_intermediate_size": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 8,
            "norm_topk_prob": True,
        },
    ),
    "gemma2": lambda: simple(
        "Gemma2",
        "gemma2",
        keys(attn_logit_softcapping=20.0, final_logit_softcapping=5.0, **TWO_HEADS, **HEADS_OF_GEMMA, **WINDOW),
        one_more,
        **{**GEMMA, "sliding_window": 16, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 5.0},
    ),
    "gemma2 of 27B": lambda: wide_queries("Gemma2", "gemma2", 46),
    "gemma3": gemma3,
    "gemma3 of 27B": lambda: wide_queries("Gemma3Text", "gemma3", 62),
    "phi3": lambda: simple(
        "Phi3", "phi3", keys(value=1e-5, vocab_size=32064, rope__dimension_count=6, **WINDOW), **PHI
    ),
    "longrope": longrope,
    "lfm2": lfm2,
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_model_that_it_was_made_from(tmp_path, case):
    model, architecture, said, how = CASES[case]()
    weights = how.pop("weights", None) or weights_of(model)
    path = write_model(tmp_path / "tiny.gguf", architecture, weights, said, **how)
    found, expected = ss.load(path).model(IDS).logits, model(IDS).logits
    assert (found - expected).abs().max() <= 3e-5 * expected.abs().max()


ONES = np.ones(8, np.float32)


@pytest.mark.parametrize(
    ("said", "extra", "named"),
    [
        ({"attention.scale": 0.5}, {}, "attention.scale = 0.5"),
        ({"rope.scale_linear": 4.0}, {}, "rope.scale_linear = 4.0"),
        ({"rope.freq_base_swa": 1e4}, {}, "rope.freq_base_swa = 10000.0"),
        ({"expert_count": 8}, {}, "expert_count = 8"),
        ({"attention.causal": False}, {}, "attention.causal = False"),
        ({"attention.sliding_window": 16}, {}, "attention.sliding_window = 16"),
        ({"rope.dimension_count": 4}, {}, "rope.dimension_count 4 in heads of 8"),
        ({"rope.scaling.type": "longrope"}, {}, "rope.scaling longrope"),
        ({"rope.scaling.attn_factor": 1.5}, {}, "attn_factor 1.5"),
        ({"attention.value_length": 16}, {}, "attention.value_length = 16"),
        ({}, {"blk.0.attn_q_norm.weight": ONES}, "blk.0.attn_q_norm.weight"),
        ({}, {"blk.0.attn_q.bias": ONES}, "blk.0.attn_q.bias"),
        ({}, {"rope_factors_long.weight": ONES[:4]}, "rope_factors_long.weight"),
        ({}, {"rope_freqs.weight": ONES}, "8 factors of frequencies"),
        ({"rope.scaling.factor": 2.0}, {"rope_freqs.weight": ONES[:4]}, "4 factors of frequencies"),
    ],
)
def test_what_no_part_of_the_model_takes_is_refused_by_name(tmp_path, said, extra, named):
    weights, keys = tiny_llama().state_dict(), LLAMA_KEYS | said
    path = write_model(tmp_path / "tiny.gguf", "llama", weights, keys, change=permuted, extra=extra)
    with pytest.raises(ss.errors.FileError, match=re.escape(named)):
        ss.load(path)


@pytest.mark.parametrize(
    ("case", "said", "named"),
    [
        (lfm2, {"rope.scaling.factor": 4.0}, "lfm2.rope.scaling.factor"),
        (gemma3, {"attention.key_length": 128, "attention.value_length": 128}, "heads of 128"),
    ],
)
def test_what_a_family_cannot_say_is_refused(tmp_path, case, said, named):
    model, architecture, keys, how = case()
    path = write_model(tmp_path / "tiny.gguf", architecture, weights_of(model), keys | said, **how)
    with pytest.raises(ss.errors.FileError, match=re.escape(named)):
        ss.load(path)


def test_an_architecture_that_is_not_known_is_refused_by_name(tmp_path):
    path = write_model(tmp_path / "tiny.gguf", "mpt", {}, {"block_count": 2})
    with pytest.raises(ss.errors.FileError, match="mpt"):
        ss.load(path)
