"""A tiny Llama as a GGUF file, as llama.cpp's converter writes it."""

import json

import gguf
import numpy as np
from oracles.pretrained import tiny_llama, tiny_tokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}


def permuted(weight, heads):
    """Rows of a rotary projection in the order of llama.cpp."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).transpose(0, 2, 1, 3).reshape(weight.shape)


def write_gguf(path, kind=gguf.GGMLQuantizationType.Q8_0, *, without=(), **changes):
    """Write the tiny Llama; tensors by their names in the file are left out, and fields of its shape changed."""
    config, tokenizer = tiny_llama().config, tiny_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(changes.get("layers", config.num_hidden_layers))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    vocabulary = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("splitter", "gpt-2"))
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in sorted(vocabulary, key=vocabulary.get)])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocabulary["</s>"])
    for name, tensor in tiny_llama().state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            values = permuted(values, heads) if part in name else values
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if name in without:
            continue
        if values.ndim > 1:
            packed = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
