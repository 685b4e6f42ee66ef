"""Tokenizers of other kinds: tiktoken's and those like it, and functions that turn a text into ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from tokenizers import Tokenizer

from statesize.check import whole_number
from statesize.errors import InputError
from statesize.texts.tokens import AnyTokenizer

_OF_TRANSFORMERS = ("all_special_ids", "convert_ids_to_tokens", "apply_chat_template")
_ENDS = ("eot_token", "eos_token_id", "eos_id")


def supported_tokenizer(tokenizer: object) -> AnyTokenizer | None:
    """A tokenizer as all of statesize reads it; None stays None, and what encodes no text is an InputError."""
    # Those of `tokenizers` and transformers stay as they are. Others are objects with a method `encode`, as of
    # tiktoken, or callables; both return ids, or what holds them as `input_ids` or `ids`.
    if tokenizer is None or isinstance(tokenizer, Tokenizer):
        return tokenizer
    if callable(tokenizer) and all(hasattr(tokenizer, name) for name in _OF_TRANSFORMERS):
        return cast("AnyTokenizer", tokenizer)
    encode = getattr(tokenizer, "encode", tokenizer)
    if isinstance(tokenizer, str | type) or not callable(encode):
        raise InputError(
            f"tokenizer must be one of tokenizers, transformers or tiktoken, or a function from a text to ids, got "
            f"{tokenizer if isinstance(tokenizer, str) else type(tokenizer).__name__}."
        )
    found = Encoder(tokenizer, cast("Callable[..., Any]", encode))
    found("a")
    return cast("AnyTokenizer", found)


@dataclass(frozen=True, eq=False)
class Encoder:
    """What encodes texts, with the methods of a tokenizer of transformers that are used; it adds no tokens."""

    tokenizer: Any
    encode: Callable[..., Any]
    bos_token_id: None = None
    pad_token_id: None = None
    chat_template: None = None

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end of a text."""
        named = (whole_number(getattr(self.tokenizer, name, None)) for name in _ENDS)
        return next((key for key in named if key is not None), None)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the tokens that are no text, as far as they are known."""
        named = getattr(self.tokenizer, "special_tokens_set", set[str]())
        single = getattr(self.tokenizer, "encode_single_token", None)
        found = [int(cast("Any", single)(name)) for name in named] if callable(single) else []
        return found or ([] if self.eos_token_id is None else [self.eos_token_id])

    def __call__(self, text: str, *, split_special_tokens: bool = True, **_: object) -> Any:
        """An object with `input_ids`; letters that spell a special token are text where that can be said."""
        if hasattr(self.tokenizer, "encode_ordinary"):
            special = {} if split_special_tokens else {"allowed_special": "all"}
            given = self.encode(text, **special) if special else self.tokenizer.encode_ordinary(text)
        else:
            given = self.encode(text)
        return SimpleNamespace(input_ids=self._ids(given))

    def decode(self, token_ids: Sequence[int], **_: object) -> str:
        """The text of some ids, or the ids themselves where there is no way back."""
        decode = getattr(self.tokenizer, "decode", None)
        return str(decode(list(token_ids))) if callable(decode) else " ".join(map(str, token_ids))

    def convert_ids_to_tokens(self, ids: int) -> str:
        """A token as text."""
        return self.decode([ids])

    def _ids(self, given: Any) -> list[int]:
        held: Any = given
        if isinstance(given, Mapping):
            held = cast("Mapping[str, Any]", given).get("input_ids")
        held = getattr(held, "input_ids", getattr(held, "ids", held))
        # A tokenizer that was asked for tensors returns a batch of one text.
        listed: Any = held[0] if getattr(held, "ndim", 1) == 2 else held
        iterable = isinstance(listed, Iterable) and not isinstance(listed, str | bytes | Mapping)
        ids = [whole_number(one) for one in cast("Iterable[object]", listed)] if iterable else [None]
        if None in ids:
            raise InputError(
                "tokenizer must return token ids, a list of them or what holds one as input_ids, got "
                f"{type(cast('object', given)).__name__} from {type(self.tokenizer).__name__}."
            )
        return cast("list[int]", ids)
