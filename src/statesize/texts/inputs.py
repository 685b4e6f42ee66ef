"""Inputs of a profile: token ids, text, frames, or whatever else a model takes, as one sequence after another."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from statesize.adapters.forward import Forward, Measured, check_mask
from statesize.adapters.forward import Inputs as ModelInputs
from statesize.adapters.models.model_state import mapped, tensors_sha256
from statesize.adapters.models.quantised import measurable
from statesize.errors import InputError
from statesize.texts import bundled
from statesize.texts.documents import IDS, read_file, read_token_ids
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer, beginning_id, encode, special_ids, text_sequence

_HOW_TO_GIVE = "Give a LongTensor of token ids (L,) or (S, L), lists of ids, or text with its tokenizer."

# What tokenizers and collators return that says something of the text and is no part of what a model computes.
_SAID_OF_TEXT = frozenset({"labels", "special_tokens_mask", "offset_mapping", "length"})
_OF_TEXT = _SAID_OF_TEXT | {"input_ids", "attention_mask"}


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of a model for one sequence.

    Attributes:
        inputs: What the model is called with; a dimension of sequences has size 1.
        measured: Whose positions are measured.
    """

    inputs: ModelInputs
    measured: Measured

    def __len__(self) -> int:
        """Number of positions, L."""
        return self.measured.length


Given: TypeAlias = Tensor | Arguments
"""One sequence: token ids (L,), or arguments."""


TokenInput: TypeAlias = Tensor | Sequence[int] | str | Path | Mapping[str, Any]
Inputs: TypeAlias = TokenInput | Iterable[TokenInput]


def sequences(inputs: Inputs, tokenizer: AnyTokenizer | None = None) -> Iterator[Tensor]:
    """Sequences of token ids, (L,) int64 each, L ≥ 2, read as they are used."""
    return cast("Iterator[Tensor]", given_sequences(None, inputs, tokenizer))


def given_sequences(
    model: nn.Module | None, inputs: Any, tokenizer: AnyTokenizer | None = None, axis: int | None = None
) -> Iterator[Given]:
    """The sequences of whatever a model takes: `sequences`, and arguments where that is more than token ids."""
    if not isinstance(inputs, Iterable | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _wrong("token ids, text, or an iterable of either", type(inputs).__name__)
    several = cast("Sequence[object]", inputs) if isinstance(inputs, list | tuple | range) else ()
    are_numbers = any(isinstance(item, int | float) or getattr(item, "ndim", None) == 0 for item in several)
    is_single = are_numbers or isinstance(inputs, Tensor | np.ndarray | str | Path | Mapping)
    items, index = cast("Iterable[Any]", [inputs] if is_single else inputs), -1
    for index, given in enumerate(given for item in items for given in _split(model, item, tokenizer, axis)):
        if len(given) < 2:
            raise InputError(f"Sequence {index} must have at least 2 tokens, got {len(given)}. Give a longer text.")
        if isinstance(given, Tensor) and (least := int(given.min())) < 0:
            raise InputError(f"Sequence {index} must have token ids of at least 0, got {least}. Leave out padding.")
        yield given
    if index < 0:
        raise _wrong("a sequence of 2 tokens or more", "none")


def _wrong(wanted: str, got: str, advice: str = _HOW_TO_GIVE) -> InputError:
    return InputError(f"inputs must be {wanted}, got {got}. {advice}")


def _split(model: nn.Module | None, item: Any, tokenizer: AnyTokenizer | None, axis: int | None) -> Iterator[Given]:
    """The sequences of an item: what is more than token ids as the arguments of each, if the model is there."""
    if isinstance(item, str | Path):
        yield from _texts(item, tokenizer)
    elif model is not None and (_is_more_than_ids(item) or (axis is not None and isinstance(item, Tensor | Mapping))):
        yield from _arguments_of(model, item, axis)
    else:
        yield from _ids_of_tokenizer(cast("Mapping[str, Any]", item)) if isinstance(item, Mapping) else _ids(item)


def _texts(item: str | Path, tokenizer: AnyTokenizer | None) -> Iterator[Tensor]:
    """The sequences of a text, or of a file."""
    if isinstance(item, Path) and item.suffix.lower() == IDS:
        yield from read_token_ids(item, None)
        return
    if tokenizer is None:
        advice = "Give tokenizer(text)['input_ids'], or to ss.profile the model's tokenizer too: tokenizer=…."
        raise _wrong("token ids where no tokenizer is given", f"text ({str(item)[:40]!r})", advice)
    if isinstance(item, Path):
        yield from (text_sequence(tokenizer, document) for document in read_file(item, whole=True))
        return
    ids, first = encode(tokenizer, item), special_ids(tokenizer)[1].get("bos")
    # A text, such as a chat's, may bring the token that begins it.
    yield torch.tensor(ids[1:] if first is not None and ids[:2] == [first, first] else ids, dtype=torch.long)


def _other_arguments(item: Mapping[str, Any]) -> list[str]:
    """The arguments beside token ids and their mask that a mapping holds."""
    other = {name for name, value in item.items() if value is not None} - _OF_TEXT
    if "token_type_ids" in other and not any(bool(torch.as_tensor(row).any()) for row in item["token_type_ids"]):
        other.remove("token_type_ids")
    return sorted(other)


def _is_more_than_ids(item: object) -> bool:
    """Whether something that a model takes is more than token ids (L,) or (S, L) with their mask."""
    if isinstance(item, Mapping):
        return bool(_other_arguments(cast("Mapping[str, Any]", item)))
    if not isinstance(item, Tensor | np.ndarray):
        return False
    # No tensor holds an array of objects, which is refused later.
    is_real = item.is_floating_point() if isinstance(item, Tensor) else cast("Any", item).dtype.kind == "f"
    return item.ndim > 2 or (item.ndim == 2 and is_real)


def _arguments_of(model: nn.Module, item: Any, axis: int | None) -> Iterator[Arguments]:
    """The sequences of a tensor that a model takes, or the one of a mapping to its arguments."""
    module = measurable(model)
    if isinstance(item, Mapping):
        left_out = _SAID_OF_TEXT - inspect.signature(module.forward).parameters.keys()
        named = {name: value for name, value in cast("Mapping[str, Any]", item).items() if name not in left_out}
        measured = Forward.of(module, named, axis).measured
        if (count := measured.shape[measured.sequence_axis]) != 1:
            raise _wrong("a mapping of one sequence", f"{count} in it", "Give a list of mappings.")
        yield Arguments(named, measured)
        return
    frames = torch.as_tensor(item)
    measured = Forward.of(module, frames, axis).measured
    axis, shape = measured.sequence_axis, list(frames.shape)
    shape[axis] = 1
    for row in range(frames.shape[axis]):
        yield Arguments(frames.narrow(axis, row, 1), replace(measured, shape=tuple(shape)))


def _ids_of_tokenizer(item: Mapping[str, Any]) -> Iterator[Tensor]:
    """The token ids in what a tokenizer returns, where a model would take nothing else."""
    other, masks = _other_arguments(item), item.get("attention_mask")
    several = cast("Sequence[Any]", masks if isinstance(masks, list | tuple) else [] if masks is None else [masks])
    if other or item.get("input_ids") is None:
        raise _wrong("a mapping of input_ids alone", f"{', '.join(other or item) or 'nothing'} in it")
    # A list may hold those of several texts of several lengths.
    for mask in several:
        check_mask(torch.as_tensor(mask))
    return sequences(item["input_ids"])


def _ids(item: object) -> Iterator[Tensor]:
    try:
        ids = torch.as_tensor(item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _wrong("token ids or text", f"{type(item).__name__} that is neither ({error})") from error
    if ids.ndim not in {1, 2} or (ids.ndim == 2 and isinstance(item, list | tuple)):
        raise _wrong("token ids of shape (L,) or (S, L)", f"shape {tuple(ids.shape)}")
    if ids.is_meta or (ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)):
        advice = "Give ids.long(). Frames have a dimension of sequences before that of positions."
        raise _wrong("integer token ids", f"dtype {ids.dtype} on {ids.device}", advice)
    yield from torch.atleast_2d(ids).long().cpu().unbind(0)


def counted(sequences: Sequence[Given]) -> str:
    """What sequences are counted in: tokens, or positions where some have none."""
    return "positions" if any(ids_of(given) is None for given in sequences) else "tokens"


def inputs_of(given: Given) -> tuple[ModelInputs, int | None]:
    """What a model is called with for one sequence, and the dimension of positions in what is measured."""
    return (given.inputs, given.measured.axis) if isinstance(given, Arguments) else (given[None], None)


def ids_of(given: Given) -> Tensor | None:
    """Token ids, (L,) int64; None where the positions have none."""
    if not isinstance(given, Arguments):
        return given
    inputs = given.inputs
    ids = cast("Tensor", inputs[given.measured.name] if isinstance(inputs, Mapping) else inputs)
    return None if ids.ndim > 2 or ids.is_floating_point() else ids.flatten().long().cpu()


def tokens_sha256(sequences: Sequence[Given]) -> str:
    """SHA-256 of token ids, (L,) int64 each, or of other arguments, and of where the sequences end."""
    digest = hashlib.sha256()
    for given in sequences:
        digest.update(f"{len(given)}\n".encode())
        is_ids = not isinstance(given, Arguments)
        digest.update(given.numpy().astype("<i8").tobytes() if is_ids else _arguments_sha256(given))
    return digest.hexdigest()


def _arguments_sha256(given: Arguments) -> bytes:
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> str:
        """A value without its tensors, which are noted."""
        if isinstance(value, Tensor):
            tensors[f"{len(tensors)}"] = value
        return f"tensor {len(tensors) - 1}" if isinstance(value, Tensor) else repr(value)

    inputs = dict(sorted(given.inputs.items())) if isinstance(given.inputs, Mapping) else given.inputs
    about = json.dumps([given.measured.name, given.measured.axis, mapped(inputs, plain)])
    return tensors_sha256(tensors, about).encode()


def bundled_sequences(tokenizer: AnyTokenizer | None, number: int | None = 1, length: int | None = 512) -> list[Tensor]:
    """The beginnings of bundled documents, the plainest prose first, of at most `length` tokens each; None is all."""
    if tokenizer is None:
        raise _wrong("token ids for a model without a tokenizer", "none")
    return [text_sequence(tokenizer, document)[:length] for document in bundled.documents()[:number]]


def whole_texts(inputs: Inputs | None, tokenizer: AnyTokenizer | None) -> list[Tensor]:
    """The sequences of the caller, (L,) each, or the bundled documents."""
    return bundled_sequences(tokenizer, None, None) if inputs is None else list(sequences(inputs, tokenizer))


def numbered_excerpts(
    texts: Sequence[Tensor], size: int, most: int, tokenizer: AnyTokenizer | None
) -> list[tuple[int, Tensor]]:
    """Pieces of texts that do not overlap, of so many tokens, from all parts, each with the number of its text."""
    # Each begins with the beginning-of-sequence token, where the tokenizer puts one before a text: a model that was
    # trained with it reads a text without it as no other text.
    first = beginning_id(tokenizer)
    begin = torch.tensor([] if first is None else [first], dtype=torch.long)
    size -= len(begin)
    bare = [ids[1:] if first is not None and int(ids[0]) == first else ids for ids in texts]
    pieces = [
        (number, ids[at : at + size]) for number, ids in enumerate(bare) for at in range(0, len(ids) - size + 1, size)
    ]
    return [(number, torch.cat([begin, piece])) for number, piece in evenly(pieces, most)]
