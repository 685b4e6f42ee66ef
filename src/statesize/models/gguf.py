"""GGUF files: read quickly by transformers, with every tensor in its place and text split as the file says."""

from __future__ import annotations

import struct
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from torch import nn

from statesize.adapters.replaced import replaced
from statesize.errors import FileError

_PACKAGES = ("gguf", "accelerate", "transformers.integrations.gguf")
_LONGEST_ARRAY = 10_000  # entries of an array of layers; longer ones are of the vocabulary

# Names of splitters as llama.cpp gives them (src/llama-vocab.cpp), by what transformers splits alike; "" is GPT-2, and
# "digits" GPT-2 behind single digits.
_ALIKE: dict[str, str] = dict.fromkeys(
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "roberta-bpe", "trillion", "mellum"), ""
)
_ALIKE |= dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "exaone", "minerva-7b", "mellum2"), "digits")
_ALIKE |= dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), "qwen2")
_ALIKE |= dict.fromkeys(("glm4", "chatglm-bpe"), "llama3")


def unread(path: Path, reason: str) -> FileError:
    """The refusal of a GGUF file of which transformers would leave something out."""
    return FileError(f"{path} must hold what transformers reads, got {reason}. Give the folder that it was made from.")


@contextmanager
def quick_reading(path: Path | None) -> Generator[None]:
    """Let transformers read a GGUF file without parsing its vocabulary, which by itself it does six times, and bars."""
    if path is None:
        yield
        return
    if path.suffix != ".gguf":
        raise FileError(f"{path} must have a name that ends in .gguf, as transformers expects. Rename it.")
    if any(find_spec(package) is None for package in _PACKAGES):
        raise FileError(f"{path} is a GGUF file. Install what reads it: pip install -U 'statesize[gguf]'.")
    import gguf
    import transformers.modeling_gguf_pytorch_utils as reader

    class QuickReader(gguf.GGUFReader):
        """Leaves out arrays of strings and of tokens, and reads pages as a plain array, not a slower memmap."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[Any]]:
            stored: Any = self.data
            if raw_type == gguf.GGUFValueType.ARRAY:
                element, count = struct.unpack_from("=IQ", stored, orig_offs)
                end, kind = orig_offs + 12, gguf.GGUFValueType(element)
                if kind == gguf.GGUFValueType.STRING:
                    for _ in range(count):
                        end += 8 + struct.unpack_from("=Q", stored, end)[0]
                    return end - orig_offs, [], [], [gguf.GGUFValueType.ARRAY, kind]
                if count > _LONGEST_ARRAY:
                    end += count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
                    return end - orig_offs, [], [], [gguf.GGUFValueType.ARRAY, kind]
            return super()._get_field_parts(orig_offs, raw_type)

    # For each layer of a model, transformers makes the table of names anew.
    table, silent = cache(gguf.get_tensor_name_map), partial(cast("Any", reader).tqdm, disable=True)
    quick = {(gguf, "GGUFReader"): QuickReader, (gguf, "get_tensor_name_map"): table, (reader, "tqdm"): silent}
    with replaced(quick):
        yield


def gguf_header(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of a GGUF file by key, of arrays of strings their lengths, and the names of its tensors."""
    import transformers.integrations.gguf.reader as header

    return cast("Any", header).read_gguf_metadata(str(path.absolute()))


def gguf_tensor(path: Path, name: str) -> np.ndarray:
    """A tensor of a GGUF file, dequantised."""
    import gguf

    tensors = gguf.GGUFReader(str(path.absolute())).tensors
    return next(gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors if tensor.name == name)


def stored_weights(path: Path) -> str:
    """The dtype of most weights of a GGUF file, such as "Q4_1, dequantised" or "F16"; "GGUF" if it is not known."""
    from gguf import LlamaFileType

    names: dict[object, str] = {kind.value: kind.name for kind in LlamaFileType}
    name = names.get(gguf_header(path)[0].get("general.file_type"), "GGUF").removeprefix("MOSTLY_").removeprefix("ALL_")
    return name if name in ("GGUF", "F32", "F16", "BF16") else f"{name}, dequantised"


def check_tensors(path: Path, model: nn.Module, unexpected: Collection[str], used_by_config: Collection[str]) -> None:
    """Refuse a GGUF file with tensors that neither a part of the model nor its configuration takes."""
    import transformers.integrations.gguf.gguf_conversion_mapping as conversions
    import transformers.modeling_gguf_pytorch_utils as utilities

    (metadata, tensors), unused, reader = gguf_header(path), sorted(unexpected), cast("Any", utilities)
    architecture = str(metadata["general.architecture"])
    # The tensors of other architectures are renamed one by one, and transformers tells which are unexpected.
    if architecture not in cast("Any", conversions).GGUF_ARCHS:
        processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config={})
        names = reader.get_gguf_hf_weights_map(model, processor)
        used = {*names, *(f"{name}.weight" for name in names), *used_by_config}
        unused += [tensor for tensor in tensors if tensor not in used]
    if unused:
        raise unread(path, f"{len(unused)} tensors that no part of the model takes, such as {unused[0]}")


def set_splitter(tokenizer: Any, path: Path) -> None:
    """Let the tokenizer of a GGUF file split text as the file says; refuse a splitter that is not known."""
    from transformers.integrations.gguf import gguf_tokenizer_mapping

    metadata, _ = gguf_header(path)
    kind, backend = metadata.get("tokenizer.ggml.model"), tokenizer.backend_tokenizer
    if kind == "llama":
        _set_space(backend, metadata)
    if kind != "gpt2":
        return
    known: dict[str, str] = cast("Any", gguf_tokenizer_mapping).GGUF_PRE_TOKENIZER_SPLITS
    stated = str(metadata.get("tokenizer.ggml.pre", ""))
    name = _ALIKE.get(stated, stated)
    if name in known:
        first = [pre_tokenizers.Split(Regex(known[name]), behavior="isolated")]
    elif stated in _ALIKE:
        first = [pre_tokenizers.Digits(individual_digits=True)] if name == "digits" else []
    else:
        raise FileError(f"tokenizer.ggml.pre of {path} must be a known splitter, got {stated!r}. Give token ids.")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in known)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])


def _set_space(backend: Any, metadata: dict[str, Any]) -> None:
    """Let a tokenizer of SentencePiece put a space ahead of each text, or of none; transformers does as it sees fit."""
    # Where a file says nothing, llama.cpp puts one, and the converter has always said of Gemma that there is none.
    of_gemma = str(metadata["general.architecture"]).startswith("gemma")
    ahead = bool(metadata.get("tokenizer.ggml.add_space_prefix", not of_gemma))
    if of_gemma and not ahead:
        return
    mark, decoded = "▁", [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(mark)] * ahead + [normalizers.Replace(" ", mark)])
    backend.pre_tokenizer = None
    backend.decoder = decoders.Sequence(decoded + [decoders.Strip(" ", 1, 0)] * ahead)
