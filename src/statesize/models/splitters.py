"""How a GGUF file's tokenizer prepares text before it merges: by the splitter that it names, or with a space ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers

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
    metadata, name = gguf_metadata(path), _splitter_name(path)
    if metadata.get("tokenizer.ggml.model") == "llama":
        _set_space(tokenizer, metadata)
    elif name in _BY_NAME:
        splits = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in _BY_NAME[name]]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


def _set_space(tokenizer: Any, metadata: dict[str, Any]) -> None:
    """Let a tokenizer of SentencePiece put a space ahead of each text, or of none; transformers does as it sees fit."""
    # Where a file says nothing, llama.cpp puts one, and the converter has always said of Gemma that there is none.
    of_gemma = str(metadata["general.architecture"]).startswith("gemma")
    ahead = bool(metadata.get("tokenizer.ggml.add_space_prefix", not of_gemma))
    if of_gemma and not ahead:
        return
    backend, mark = tokenizer.backend_tokenizer, "▁"
    first = [normalizers.Prepend(mark)] if ahead else []
    backend.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", mark)])
    backend.pre_tokenizer = None
    last = [decoders.Strip(" ", 1, 0)] if ahead else []
    backend.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse(), *last])


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
