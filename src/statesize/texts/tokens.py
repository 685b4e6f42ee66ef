"""Tokenizers of the two kinds that models come with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor

from statesize.check import refuse
from statesize.errors import FileError
from statesize.texts.rows import Chat, Document, RefusedChat

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

AnyTokenizer: TypeAlias = "Tokenizer | PreTrainedTokenizerBase"
"""A tokenizer of one of two kinds."""

_ENDS = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>")
# A cut changes the ids near it: so many beyond those that are wanted are made, and left out.
_MARGIN = 64


def encode(tokenizer: AnyTokenizer, text: str) -> list[int]:
    """A text as a model reads it, with the special tokens that its tokenizer adds."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode(text).ids
    return list(cast("Any", tokenizer)(text).input_ids)


def text_sequence(tokenizer: AnyTokenizer, document: Document, most: int | None = None) -> Tensor:
    """A document as a sequence (L,) int64, followed by the end-of-sequence token, if there is one, as in training.

    Letters of a text that spell a special token are text. A beginning-of-sequence token comes first where the
    tokenizer adds one. To a chat nothing is added: its template says all.

    Args:
        tokenizer: That of the model.
        document: A text or a chat.
        most: The number of tokens that are wanted. Of a longer text, only one more is encoded.

    Returns:
        The ids.
    """
    ids, first = document_ids(tokenizer, document, most=most), beginning_id(tokenizer)
    if isinstance(document, str):
        end = special_ids(tokenizer)[1].get("eos")
        ids = [*([] if first is None else [first]), *ids, *([] if end is None else [end])]
    return torch.tensor(ids, dtype=torch.int64)


def document_ids(tokenizer: AnyTokenizer, document: Document, most: int | None = None) -> list[int]:
    """Ids of a text, or of a chat through the tokenizer's template, without tokens around it."""
    if not isinstance(document, str):
        return plain_ids(tokenizer, _chat_text(tokenizer, document), special_tokens=True)
    size = len(document) if most is None else 16 * (most + _MARGIN)
    while size < len(document):
        ids = plain_ids(tokenizer, document[:size])
        if most is not None and len(ids) >= most + _MARGIN:
            return ids[: most + 1]
        size *= 4
    return plain_ids(tokenizer, document)


def _chat_text(tokenizer: AnyTokenizer, chat: Chat) -> str:
    """A chat as the tokenizer's template writes it."""
    if isinstance(tokenizer, Tokenizer) or not tokenizer.chat_template:
        raise FileError(
            f"tokenizer must have a chat template to read {chat.where}, got one without. Give a model whose folder has "
            "a chat_template.jinja, or name a field that holds text by --field."
        )
    try:
        return str(cast("Any", tokenizer).apply_chat_template(list(chat.messages), tokenize=False))
    except Exception as error:  # a template is a program, which may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise RefusedChat(f"{chat.where}: the chat template refuses the messages ({reason})") from error


def special_ids(tokenizer: AnyTokenizer) -> tuple[set[int], dict[str, int]]:
    """Ids of all special tokens of a tokenizer, and those whose role is known: "eos", "bos", "pad"."""
    if isinstance(tokenizer, Tokenizer):
        known = {token.content: key for key, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        ends = [known[name] for name in _ENDS if name in known]
        return set(known.values()), {"eos": ends[0]} if ends else {}
    roles = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ("eos", "bos", "pad")}
    return set(tokenizer.all_special_ids), {role: int(key) for role, key in roles.items() if key is not None}


def token_text(tokenizer: AnyTokenizer, token: int) -> str:
    """A token as text, with the space before it."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.decode([token], skip_special_tokens=False)
    text = str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    # Decoding takes the space off a text's first word, which SentencePiece writes as a low line.
    spaced = str(tokenizer.convert_ids_to_tokens(token)).startswith("▁") and not text.startswith(" ")
    return f" {text}" if spaced else text


def plain_ids(tokenizer: AnyTokenizer, document: str, special_tokens: bool = False) -> list[int]:
    """Ids of a text without tokens around it; letters that spell a special token are text unless `special_tokens`."""
    if not isinstance(tokenizer, Tokenizer):
        options = {"add_special_tokens": False, "split_special_tokens": not special_tokens}
        return list(cast("Any", tokenizer)(document, **options).input_ids)
    special_as_text = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = not special_tokens
    try:
        return tokenizer.encode(document, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = special_as_text


def beginning_id(tokenizer: AnyTokenizer | None) -> int | None:
    """Id of the beginning-of-sequence token, where the tokenizer puts one before what it encodes; else None."""
    if tokenizer is None or isinstance(tokenizer, Tokenizer) or (first := tokenizer.bos_token_id) is None:
        return None
    return cast("int", first) if encode(tokenizer, "a")[:1] == [first] else None


def supported_tokenizer(tokenizer: object) -> AnyTokenizer | None:
    """A tokenizer of tokenizers or transformers, as it is; None stays None, and anything else is an InputError."""
    if tokenizer is None or isinstance(tokenizer, Tokenizer) or hasattr(tokenizer, "apply_chat_template"):
        return cast("AnyTokenizer | None", tokenizer)
    advice = "Load it first, such as by transformers.AutoTokenizer, or give token ids."
    refuse("tokenizer", "one of tokenizers or transformers", tokenizer, advice)
