"""Tiny models as GGUF files, as llama.cpp's converter writes them."""

import json

import gguf
import numpy as np
from oracles.pretrained import tiny_llama, tiny_tokenizer


def permuted(weight, heads):
    """Rows of a rotary projection in the order of llama.cpp."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def permuting(heads, key_heads):
    """The change that llama.cpp makes to the projections of a Llama."""

    def changed(name, values):
        of_keys = ".attn_k." in name
        return permuted(values, key_heads if of_keys else heads) if of_keys or ".attn_q." in name else values

    return changed


def write_model(path, architecture, weights, keys, *, change=None, kind=None, without=(), splitter="gpt-2", **more):
    """Write weights of transformers by the names that the package gguf has for them.

    `change` takes a name and its values to what the file holds, `more` are `names` beside those of the package and
    `extra` tensors.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        name = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kinds.get(type(value), writer.add_array)(name, value)
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in sorted(vocabulary, key=vocabulary.get)])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocabulary["</s>"])
    known = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table, names = gguf.get_tensor_name_map(known, 64), more.get("names", {})
    tensors = {}
    for theirs, tensor in weights.items():
        begin, dot, end = theirs.rpartition(".") if theirs.endswith((".weight", ".bias")) else (theirs, "", "")
        name = names.get(theirs) or f"{table.get_name(begin)}{dot}{end}"
        values = tensor.numpy()
        tensors[name] = np.ascontiguousarray(change(name, values) if change else values)
    for name, values in (tensors | more.get("extra", {})).items():
        if name in without:
            continue
        if values.ndim > 1 and kind is not None:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def keys_of_llama(config, **more):
    """What a file says of a Llama."""
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "vocab_size": config.vocab_size,
    } | more


def write_gguf(path, kind=gguf.GGMLQuantizationType.Q8_0, *, without=(), **changes):
    """Write the tiny Llama; tensors by their names in the file are left out, and fields of its shape changed."""
    model = tiny_llama()
    heads = permuting(model.config.num_attention_heads, model.config.num_key_value_heads)
    keys = keys_of_llama(model.config, **{"general.file_type": int(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])})
    keys["block_count"] = changes.get("layers", keys["block_count"])
    splitter, keys = changes.get("splitter", "gpt-2"), keys | changes.get("keys", {})
    weights = model.state_dict()
    return write_model(path, "llama", weights, keys, change=heads, kind=kind, without=without, splitter=splitter)


def write_sentencepiece(path, learned, **fields):
    """Write a file whose vocabulary is of SentencePiece, the best of the learned tokens first; its model is empty."""
    model = tiny_llama()
    writer = gguf.GGUFWriter(path, "llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    for key, value in (keys_of_llama(model.config) | {"vocab_size": len(tokens)}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"llama.{key}", value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(learned))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(learned))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in fields.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), model.config.hidden_size), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
