"""Tiny models as GGUF files, as llama.cpp's converter writes them."""

import json

import gguf
import numpy as np
from oracles.pretrained import tiny_llama, tiny_tokenizer

# What a file says of the tiny Llama.
LLAMA_KEYS = {"block_count": 2, "context_length": 256, "embedding_length": 32, "feed_forward_length": 32}
LLAMA_KEYS |= {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6}
LLAMA_KEYS |= {"rope.freq_base": 10000.0, "vocab_size": 300}


def permuted(name, values):
    """Rows of the rotary projections of a Llama with four heads and two of keys, in the order of llama.cpp."""
    heads = 4 if ".attn_q." in name else 2 if ".attn_k." in name else 0
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape) if heads else values


def _write(path, architecture, fields, tensors, kind=None):
    writer = gguf.GGUFWriter(path, architecture)
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in fields.items():
        name = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        kinds.get(type(value), writer.add_array)(name, value)
    for name, values in tensors.items():
        if values.ndim > 1 and kind is not None:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(path, architecture, weights, keys, *, change=None, kind=None, splitter="gpt-2", names=(), extra=()):
    """Write weights of transformers by the names that the package gguf has for them, and more `names` and `extra`.

    `change` takes a name and its values to what the file holds.
    """
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    words = {
        "model": "gpt2",
        "pre": splitter,
        "tokens": tokens,
        "token_type": [3 if token in ("<s>", "</s>") else 1 for token in tokens],
        "merges": [" ".join(pair) for pair in merges],
        "eos_token_id": vocabulary["</s>"],
    }
    known = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table, names, tensors = gguf.get_tensor_name_map(known, 64), dict(names), {}
    for theirs, tensor in weights.items():
        begin, dot, end = theirs.rpartition(".") if theirs.endswith((".weight", ".bias")) else (theirs, "", "")
        name = names.get(theirs) or f"{table.get_name(begin)}{dot}{end}"
        tensors[name] = np.ascontiguousarray(change(name, tensor.numpy()) if change else tensor.numpy())
    fields = keys | {f"tokenizer.ggml.{name}": value for name, value in words.items()}
    return _write(path, architecture, fields, tensors | dict(extra), kind)


def write_gguf(path, kind=gguf.GGMLQuantizationType.Q8_0, splitter="gpt-2"):
    """Write the tiny Llama."""
    keys = LLAMA_KEYS | {"general.file_type": int(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])}
    return write_model(path, "llama", tiny_llama().state_dict(), keys, change=permuted, kind=kind, splitter=splitter)


def write_sentencepiece(path, learned, **fields):
    """Write a file whose vocabulary is of SentencePiece, the best of the learned tokens first; its model is empty."""
    words = {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned],
        "scores": [0.0] * 259 + [-float(rank) for rank in range(len(learned))],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(learned),
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | fields
    keys = LLAMA_KEYS | {"vocab_size": len(words["tokens"])}
    keys |= {f"tokenizer.ggml.{name}": value for name, value in words.items()}
    return _write(path, "llama", keys, {"token_embd.weight": np.zeros((keys["vocab_size"], 32), np.float32)})
