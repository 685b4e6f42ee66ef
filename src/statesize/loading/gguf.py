"""GGUF files: weights, mostly quantised, and a tokenizer in one file, which transformers reads and dequantises."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from statesize.adapters.watching.kernel_functions import replaced
from statesize.errors import FileError

_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its first bytes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


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

    with replaced(reader, "tqdm", silent):
        yield


def stored_weights(path: Path) -> str:
    """How most weights of a GGUF file are stored, such as "Q4_1, dequantised" or "F16"; "GGUF" if that is not known."""
    try:
        # That of the package gguf takes seconds for a large vocabulary.
        import transformers.integrations.gguf.reader as reader
    except ImportError:
        return "GGUF"
    from gguf import LlamaFileType

    metadata: dict[str, Any] = cast("Any", reader).read_gguf_metadata(str(path))[0]
    kinds: dict[object, str] = {kind.value: kind.name for kind in LlamaFileType}
    kind = kinds.get(metadata.get("general.file_type"), "GGUF").removeprefix("MOSTLY_").removeprefix("ALL_")
    return kind if kind in ("GGUF", "F32", "F16", "BF16") else f"{kind}, dequantised"
