"""Files of models: weights that are all there, GGUF, and tokenizers with a digest."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer
from torch import nn

from statesize.adapters.replaced import replaced
from statesize.errors import FileError
from statesize.io.callers import warn_caller
from statesize.io.files import check_header, parse_json, read_limited, replace_files
from statesize.io.text import counted, listed

# What takes quantised weights back to floating point, by its name beside them.
_SCALE = re.compile(r"scal(?:e|ing)|a(?:bs)?max|zero|quant|offset|SCB")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def check_files(folder: Path) -> None:
    """Refuse weights that lie outside their folder, and files whose headers are too long; before anything is read."""
    for weights in folder.glob("*.safetensors"):
        check_header(weights)
    for name in _INDICES:
        if not (folder / name).is_file():
            continue
        try:
            index = parse_json(read_limited(folder / name))
            shards = set(cast("dict[str, dict[str, str]]", index)["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{folder / name} must map weights to files in its weight_map ({error}).") from error
        for shard in shards:
            if Path(str(shard)).name != shard:
                raise FileError(f"{folder / name} must name files of its own folder, got {shard!r}, which is not read.")


def check_loaded(name: str, model: nn.Module, loaded: Mapping[str, Collection[Any]]) -> str:
    """Refuse a model with weights that its checkpoint does not hold; what it holds beside them, in a sentence."""
    # `loaded`: the `output_loading_info` of transformers; tied weights and computed buffers are not missing.
    total = sum(1 for _ in model.named_parameters())
    unused = sorted(loaded["unexpected_keys"])
    held = {weight for weight, _ in model.named_parameters()}
    if scales := [key for key in unused if _is_scale(key, held)]:
        raise FileError(
            f"{name} holds scales of quantised weights that the model has no place for, so weights would be others: "
            f"{listed(scales)}. Give the checkpoint that it was made from."
        )
    if missing := sorted(loaded["missing_keys"]):
        raise FileError(
            f"{name} lacks {len(missing)} of the model's {total} weights, which would be random numbers: "
            f"{listed(missing)}. Give a checkpoint with all of them, and the config.json that belongs to it."
        )
    if mismatched := sorted(loaded["mismatched_keys"]):
        weight, stored, expected = mismatched[0]
        raise FileError(
            f"{name} holds {len(mismatched)} of the model's weights in another shape, which would be random numbers: "
            f"{weight} is {tuple(stored)} and must be {tuple(expected)}. Give the config.json that belongs to it."
        )
    if not unused:
        return ""
    sentence = f"No part of the model uses {counted(len(unused), 'weight')} of the checkpoint: {listed(unused)}"
    warn_caller(f"{name}: {sentence}.")
    return sentence


def _is_scale(key: str, held: Collection[str]) -> bool:
    """Whether a name is that of a quantiser's numbers beside a weight of the model."""
    ends = (match.start() for match in re.finditer(r"\.", key))
    return any(f"{key[:end]}.weight" in held and _SCALE.search(key, end) for end in ends)


def check_stored(name: str, folder: Path, model: nn.Module, unused: Collection[str]) -> None:
    """Refuse weights in integers or in floats of 8 bits, which transformers takes as they are, without their scales."""
    index, parameters = folder / _INDICES[0], [weight for weight, _ in model.named_parameters()]
    shards = parse_json(read_limited(index)) if index.is_file() else {"weight_map": {"": "model.safetensors"}}
    for shard in sorted(set(cast("dict[str, dict[str, str]]", shards)["weight_map"].values())):
        header = check_header(folder / shard) if (folder / shard).is_file() else {}
        for weight, dtype in ((key, entry["dtype"]) for key, entry in header.items() if key != "__metadata__"):
            if dtype in ("F64", "F32", "F16", "BF16") or weight in unused:
                continue
            # Masks of older models are of bytes.
            is_weight = any(f".{one}".endswith(f".{weight}") or weight.endswith(f".{one}") for one in parameters)
            if is_weight or dtype.startswith(("I8", "F8", "F6", "F4")):
                raise FileError(
                    f"{name} must hold its weights in floating point of 16 bits or more, got {weight} as {dtype}: "
                    "quantised, without the scales that would take it back. Give the checkpoint that it was made from."
                )


def require_readable(path: Path) -> None:
    """Refuse a GGUF file that transformers would not take for one, or without the packages that it needs."""
    if path.suffix != ".gguf":
        raise FileError(
            f"{path} must have a name that ends in .gguf, as transformers expects of a GGUF file. Rename it."
        )
    if any(find_spec(package) is None for package in ("gguf", "accelerate")):
        raise FileError(
            f"{path} is a GGUF file, which needs the packages gguf and accelerate: pip install 'statesize[gguf]'."
        )


@contextmanager
def without_bar() -> Generator[None]:
    """Keep back the bar of transformers for the tensors of a GGUF file, which no setting of its turns off."""
    import transformers.modeling_gguf_pytorch_utils as reader

    def silent(tensors: Iterable[object], **_: object) -> Iterable[object]:
        return tensors

    with replaced({(reader, "tqdm"): silent}):
        yield


@contextmanager
def parsed_once() -> Generator[None]:
    """Let transformers parse a GGUF file once: by itself it does six times, seconds each with a large vocabulary."""
    if not find_spec("gguf"):
        yield
        return
    import gguf
    import transformers.modeling_gguf_pytorch_utils as reader

    original = cast("Callable[..., dict[str, Any]]", cast("Any", reader).load_gguf_checkpoint)

    class PlainReader(gguf.GGUFReader):
        """Reads a file's pages as a plain array: a slice of a memmap takes several times as long."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[Any]]:
            # By itself it makes a dozen calls for each string of a vocabulary.
            if raw_type != gguf.GGUFValueType.ARRAY or self.byte_order == "S":
                return super()._get_field_parts(orig_offs, raw_type)
            stored: Any = self.data
            element, count = struct.unpack_from("=IQ", stored, orig_offs)
            begin = end = orig_offs + 12
            kind, parts = gguf.GGUFValueType(element), list[Any]()
            if kind in self.gguf_scalar_to_np:
                numbers = self._get(begin, self.gguf_scalar_to_np[kind], count)
                parts, end = list(numbers[:, None]), begin + numbers.nbytes
            elif kind == gguf.GGUFValueType.STRING:
                for _ in range(count):
                    begin = end + 8
                    end = begin + struct.unpack_from("=Q", stored, end)[0]
                    parts.append(stored[begin:end])
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            kinds = [gguf.GGUFValueType.ARRAY, *[kind][:count]]
            return end - orig_offs, parts, list(range(count)), kinds

    open_file, parse = cache(PlainReader), cast("Any", reader)._gguf_parse_value

    def parsed(value: Any, kinds: list[int]) -> Any:
        # By itself it makes a list of the bytes of each string.
        return bytes(value).decode() if kinds[-1] == gguf.GGUFValueType.STRING else parse(value, kinds)

    @cache
    def metadata(path: str) -> dict[str, Any]:
        return original(path, return_tensors=False)

    def read(path: str, return_tensors: bool = False, **options: Any) -> dict[str, Any]:
        if not return_tensors:
            return {part: dict(values) for part, values in metadata(path).items()}
        # The vocabulary, whose tens of thousands of strings would be parsed again, says nothing of weights.
        fields = open_file(path).fields
        vocabulary = {key: fields.pop(key) for key in list(fields) if key.startswith("tokenizer.")}
        try:
            return original(path, return_tensors=True, **options)
        finally:
            fields.update(vocabulary)

    changes: dict[tuple[ModuleType, str], Any] = {
        (gguf, "GGUFReader"): open_file,
        (gguf, "get_tensor_name_map"): cache(gguf.get_tensor_name_map),
        (reader, "load_gguf_checkpoint"): read,
        (reader, "_gguf_parse_value"): parsed,
    }
    with suppress(ImportError):
        import transformers.integrations.gguf.reader as header

        changes[header, "read_gguf_metadata"] = cache(cast("Any", header).read_gguf_metadata)
    with replaced(changes):
        yield


def stored_weights(path: Path) -> str:
    """How most weights of a GGUF file are stored, such as "Q4_1, dequantised" or "F16"; "GGUF" if that is not known."""
    from gguf import LlamaFileType

    kinds: dict[object, str] = {kind.value: kind.name for kind in LlamaFileType}
    kind = kinds.get(gguf_metadata(path).get("general.file_type"), "GGUF").removeprefix("MOSTLY_").removeprefix("ALL_")
    return kind if kind in ("GGUF", "F32", "F16", "BF16") else f"{kind}, dequantised"


def gguf_metadata(path: Path) -> dict[str, Any]:
    """What a GGUF file says of its model; perhaps without its tokens."""
    return _gguf_contents(path)[0]


def gguf_tensor_names(path: Path) -> tuple[str, ...]:
    """The tensors of a GGUF file by their names in it."""
    return _gguf_contents(path)[1]


def gguf_tensor(path: Path, name: str) -> np.ndarray:
    """A tensor of a GGUF file, dequantised."""
    import gguf

    tensors = gguf.GGUFReader(str(path.absolute())).tensors
    return next(gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors if tensor.name == name)


def _gguf_contents(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        # That of the package gguf takes seconds for a large vocabulary.
        import transformers.integrations.gguf.reader as reader
    except ImportError:
        import gguf

        parsed = gguf.GGUFReader(str(path.absolute()))
        fields = {key: field.contents() for key, field in parsed.fields.items() if "tokens" not in key}
        return fields, tuple(tensor.name for tensor in parsed.tensors)
    return cast("Any", reader).read_gguf_metadata(str(path))


FILE, DIGEST = "tokenizer.json", "tokenizer.json.sha256"
"""A tokenizer, and its SHA-256 as the program sha256sum writes and checks it."""

_MOST_BYTES = 2**28
# Files that hold the vocabularies of tokenizers of transformers.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken", "*.bpe")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has files of a tokenizer, intact or not."""
    return any(True for pattern in _VOCABULARIES for _ in folder.glob(pattern))


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json with its digest."""
    content = (tokenizer.to_str(pretty=True) + "\n").encode()
    replace_files(folder, {FILE: content, DIGEST: _line(content)})


def check_digest(folder: Path) -> None:
    """Refuse a tokenizer.json that is not what its digest says, where it has one."""
    if not (folder / DIGEST).is_file():
        return
    try:
        content, digest = read_limited(folder / FILE, _MOST_BYTES), read_limited(folder / DIGEST)
    except OSError as error:
        raise FileError(f"{folder / FILE} cannot be read ({error.strerror or error}).") from error
    if digest.split()[:1] != _line(content).split()[:1]:
        raise FileError(
            f"{folder / FILE} is damaged: it is not what {DIGEST} says that was written. Copy it again from where the "
            f"model was made; if you have changed it on purpose, remove {DIGEST}."
        )


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, which must be there."""
    check_digest(folder)
    try:
        return Tokenizer.from_file(str(folder / FILE))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # the class that tokenizers raises has no narrower name
        raise FileError(
            f"{folder / FILE} is damaged ({error}); copy it again from where the model was made."
        ) from error


def _line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {FILE}\n".encode()
