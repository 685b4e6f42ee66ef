"""The families of transformers models that are supported, and what a mixer of each kind can keep."""

from __future__ import annotations

from dataclasses import dataclass

# Theoretical state-size (TSS) per channel at position i, by kind of mixer.
STATE_SIZES: dict[str, str] = {
    "attention": "i",
    "sliding attention": "min(i, window - 1)",
    "differential attention": "i",
    "mamba": "state size n",
    "mamba2": "state size n",
    "gated delta rule": "key dimension",
    "kimi delta attention": "key dimension",
    "lightning attention": "head dimension",
    "mlstm": "key dimension",
    "rwkv": "1",
    "rg-lru": "1",
    "short convolution": "kernel - 1",
}
CHECKED = ("5.15.1", "5.23.0")
NEWEST = CHECKED[-1:]


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: Its `model_type` in transformers.
        mixers: The kinds of mixers that are seen in it.
        checked: Versions of transformers with which T was compared with the model's own output and with impulses.
    """

    name: str
    mixers: tuple[str, ...]
    checked: tuple[str, ...] = CHECKED


_FULL, _SLIDING = "attention", "sliding attention"

FAMILIES: tuple[Family, ...] = (
    *(Family(name, (_FULL,)) for name in ("gpt2", "gpt_neox", "llama")),
    Family("mistral", (_SLIDING,)),
    *(Family(name, (_FULL,)) for name in ("qwen2", "qwen3", "phi", "phi3", "gemma")),
    *(Family(name, (_FULL, _SLIDING)) for name in ("gemma2", "gemma3_text", "gpt_oss")),
    *(Family(name, (_FULL,)) for name in ("opt", "olmo2", "deepseek_v3", "minimax_m2")),
    *(Family(name, (_FULL,)) for name in ("bloom", "falcon", "gptj", "mpt", "codegen")),
    Family("gpt_neo", (_FULL, _SLIDING)),
    *(Family(name, ("mamba",)) for name in ("mamba", "falcon_mamba")),
    *(Family(name, (_FULL, "mamba")) for name in ("jamba", "zamba")),
    Family("mamba2", ("mamba2",)),
    *(Family(name, (_FULL, "mamba2")) for name in ("bamba", "zamba2", "falcon_h1", "granitemoehybrid", "nemotron_h")),
    *(Family(name, (_FULL, "gated delta rule")) for name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")),
    Family("olmo_hybrid", (_FULL, "gated delta rule")),
    *(Family(name, (_FULL, "kimi delta attention"), NEWEST) for name in ("kimi_linear", "bailing_hybrid")),
    Family("minimax", (_FULL, "lightning attention")),
    Family("recurrent_gemma", (_SLIDING, "rg-lru")),
    Family("rwkv", ("rwkv",)),
    Family("xlstm", ("mlstm",)),
    *(Family(name, (_FULL, "short convolution")) for name in ("lfm2", "lfm2_moe")),
    Family("lfm3", (_FULL, "short convolution"), NEWEST),
)
