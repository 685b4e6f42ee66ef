"""How a GGUF file's tokenizer splits text before it merges bytes: by the name that the file gives its splitter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers

from statesize.models.files import gguf_metadata

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ENDING"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*ENDING"
    r"|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SENTENCES = r" ?[^(\s|.,!?…。，、।۔،)]+"

# Names as llama.cpp gives them (src/llama-vocab.cpp); each expression splits what those before it have left.
_SPLITTERS: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        *("gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "gigachat"),
        *("a.x-4.0", "mellum", "modern-bert", "roberta-bpe", "exaone4", "mpt", "olmo", "jais", "trillion"),
        "granite-docling",
    ): (_WORDS,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"): (r"\p{N}", _WORDS),
    (
        *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
        *("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"),
    ): (_ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST,),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"): (
        _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,
    ),
    ("seed-coder",): (_ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",),
    ("bailingmoe", "bailingmoe2", "llada-moe"): (
        _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST.replace(r"|\s*[\r\n]+|", r"|\s*[\r\n]|"),
    ),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    ("qwen35",): (
        _ENDINGS
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
        + _REST.replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
    ),
    ("tekken",): (_CASED.replace("ENDING", "").replace("DIGITS", r"\p{N}"),),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): (
        _CASED.replace("ENDING", _ENDINGS + "?").replace("DIGITS", r"\p{N}{1,3}"),
    ),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _WORDS, "[0-9][0-9][0-9]"),
    ("poro-chat", "bloom", "gpt3-finnish"): (_SENTENCES,),
    ("viking",): (_SENTENCES, r"\p{N}"),
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
}
_BY_NAME = {name: splitter for names, splitter in _SPLITTERS.items() for name in names}


def set_splitter(tokenizer: Any, path: Path) -> None:
    """Let a tokenizer of a GGUF file split text as the file says; transformers does for some names only."""
    name = _splitter_name(path)
    if name in _BY_NAME:
        splits = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in _BY_NAME[name]]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


def doubt_of_splitter(path: Path) -> str:
    """What is said of a GGUF file whose splitter is not known, so that its ids may be others; else nothing."""
    name = _splitter_name(path)
    if name is None or name in _BY_NAME:
        return ""
    return (
        f"the file's tokenizer splits text by {name or 'no name'!r} (tokenizer.ggml.pre), which is not known: its "
        "token ids may not be the model's. Give ids of the model's own tokenizer"
    )


def _splitter_name(path: Path) -> str | None:
    """What a file names its splitter, "" where it names none; None of tokenizers that merge no bytes."""
    metadata = gguf_metadata(path)
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    return str(metadata.get("tokenizer.ggml.pre", ""))
