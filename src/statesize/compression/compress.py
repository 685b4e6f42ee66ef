"""`statesize.compress`: a trained model with smaller states, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from statesize.check import real_number, refuse, require_count, require_kind
from statesize.compression.bases import KeptBasis
from statesize.compression.healing import fine_tuned, text_of
from statesize.compression.proposals import Ranking
from statesize.compression.result import Compression
from statesize.compression.scoring.paired import ratio_of
from statesize.compression.scoring.recall import probe
from statesize.compression.scoring.scores import BATCH, Scores, score
from statesize.compression.scoring.windows import Windows, three_parts
from statesize.compression.shrinking import rounded_model
from statesize.compression.state_spaces import bases_of_groups, cached_bytes, is_state_space, smaller_state_space
from statesize.errors import InputError, ModelError
from statesize.interval import Interval
from statesize.mixers.config import REDUCIBLE, ROUNDED, ModelConfig
from statesize.mixers.model import LanguageModel
from statesize.tasks.corpus import listed
from statesize.texts.token_files import vocabulary_size
from statesize.texts.tokens import AnyTokenizer

# Tokens of the calibration text for each number of a head's state: both Gramians must have full rank.
_TOKENS_PER_STATE = 16


@torch.no_grad()
def compress(
    model: nn.Module,
    tokenizer: AnyTokenizer,
    documents: Iterable[str],
    state: float | str = "50%",
    *,
    int8: bool = False,
    fine_tune: int = 0,
    length: int = 256,
) -> Compression:
    """Cuts the states of a trained model, without training, and measures what that costs on held-out documents.

    The documents are parted at random: 40 % show which states carry what outputs read (by Gramians, in one pass), 20 %
    choose between three ways to spread the states over the heads, and the rest tells the cost. Mamba and Mamba-2 of
    transformers keep their own code, which has one size of state for all layers.

    Args:
        model: With layers of "la", "wla", "gla", "gla-s6" or "s6", or Mamba or Mamba-2 of transformers; it is not
            changed.
        tokenizer: That of the model.
        documents: Text as the model is used for, at least 3 different documents, and 50 for a verdict.
        state: What to keep of the states: a share such as "50%" or 0.5, or the mean size of a head, such as 16.
        int8: Also round the states to int8 after each token; not of transformers' models.
        fine_tune: Steps of training on the calibration text, of the cut model and of the uncut one it is compared with;
            likewise.
        length: Tokens of the sequences that the model reads.

    Returns:
        The smaller model with its cost.

    Raises:
        InputError: `state` is out of range, or there is too little text.
        ModelError: The model has no states that can be cut, or was cut before.

    Example:
        >>> import statesize as ss
        >>> found = ss.compress(*ss.zoo.load("recall-la"), [f"k{i % 12} v{i % 11} k1" for i in range(132)])
        >>> found.state_bytes, found.safe
        ((2048, 1024), None)
    """
    steps = require_count("fine_tune", fine_tune, least=0)
    total = check_model(model, state, int8, steps)
    length = require_count("length", length, least=2)
    calibration, choice, held_out = split_text(model, tokenizer, listed("documents", documents), length)
    if not isinstance(model, LanguageModel):
        bases = bases_of_groups(model, calibration.unfilled(BATCH))
        cut = smaller_state_space(model, bases, total)
        return _compared(model, cut, tokenizer, held_out, f"{KeptBasis.name}, equal sizes")
    require_kind("tokenizer", tokenizer, Tokenizer, "a Tokenizer of the library tokenizers")
    cut, method = Ranking.of(model, calibration).best_cut(total, choice)
    control = model
    if steps:
        text = torch.cat([text_of(calibration.targets), text_of(choice.targets)])
        cut, control = (fine_tuned(one, text, length, steps) for one in (cut, control))
        method.append(f"{steps} steps of fine-tuning")
    if int8:
        cut = rounded_model(cut)
        method.append("int8")
    return _compared(control, cut, tokenizer, held_out, ", ".join(method))


def split_text(
    model: nn.Module, tokenizer: AnyTokenizer, documents: Sequence[str], length: int
) -> tuple[Windows, Windows, Windows]:
    """Windows for the Gramians, for the choice of sizes, and held out; refuse a text too short for the first."""
    most = model.config.positions if isinstance(model, LanguageModel) else 0
    parts = three_parts(documents, tokenizer, min(length, most or length))
    size, largest = vocabulary_size(model), max(int(part.inputs.max()) for part in parts)
    if size is not None and largest >= size:
        raise InputError(
            f"tokenizer must be that of the model, which has {size:,} tokens, got one that gives the id {largest:,}. "
            "Give the model's own."
        )
    tokens, least = int(text_of(parts[0].targets).numel()), _TOKENS_PER_STATE * state_size(model)
    if tokens < least:
        raise InputError(
            f"text must have at least {least} tokens among the 40 % of its documents for the Gramians, got {tokens}. "
            "Give more text."
        )
    return parts


def state_size(model: Any) -> int:
    """Numbers of state that a head of a model has, or a channel of Mamba."""
    return model.config.key_size if isinstance(model, LanguageModel) else model.config.state_size


def check_model(model: object, state: float | str, int8: bool = False, fine_tune: int = 0) -> int:
    """How many states are kept: of all heads, or by each head of a model of transformers; refuse what cannot be cut."""
    if not isinstance(model, LanguageModel):
        if not isinstance(model, nn.Module) or not is_state_space(model):
            raise ModelError(
                f"model must be one that statesize trains, with layers of {', '.join(REDUCIBLE)}, or Mamba or Mamba-2 "
                f"of transformers, got {type(model).__name__}. Its states cannot be cut."
            )
        for name, value in (("int8", int8), ("fine_tune", fine_tune)):
            if value:
                refuse(name, "left out for a model of transformers", value)
        n = state_size(model)
        kept = round(_share(state, n) * n)
        if not 0 < kept < n:
            refuse("state", f"a share that leaves 1 to {n - 1} of the {n} numbers of a head", state)
        return kept
    config = model.config
    heads = sum(_units(config, layer) for layer in range(config.layers))
    if not heads:
        raise ModelError(
            f"model must have layers of {', '.join(REDUCIBLE)}, got {config.mixer}. What it keeps of a text has no "
            "fixed size that could be cut."
        )
    if config.state_sizes or config.state_bits:
        raise ModelError("model must have its states as trained, got one that was cut before. Give the one it is of.")
    if int8 and not set(config.pattern) <= ROUNDED:
        refuse("int8", f"left out unless all layers are of {', '.join(sorted(ROUNDED))}", config.mixer)
    share = _share(state, config.key_size)
    if not int8 and share == 1:
        refuse("state", "less than all of it", state, "Ask for int8 to round a whole state.")
    if round(share * config.key_size * heads) < heads:
        refuse("state", f"at least 1 of {config.key_size} numbers a head", state)
    return round(share * config.key_size * heads)


def _units(config: ModelConfig, layer: int) -> int:
    """How many sizes a layer has."""
    mixer = config.mixer_of(layer)
    return 0 if mixer not in REDUCIBLE else 1 if mixer == "s6" else config.heads


def _share(state: float | str, key_size: int) -> float:
    """The share of a state that is asked for, above 0 and at most 1."""
    text = state.strip() if isinstance(state, str) else ""
    try:
        number = real_number(float(text.removesuffix("%")) if text else state)
    except ValueError:
        number = None
    share = math.nan if number is None else number / 100 if text.endswith("%") else number
    if share >= 1 and not text.endswith("%"):
        share /= key_size
    if not 0 < share <= 1:
        refuse("state", f"a share such as 50% or a size from 1 to {key_size}", state)
    return share


def _compared(
    control: nn.Module, cut: nn.Module, tokenizer: AnyTokenizer, windows: Windows, method: str
) -> Compression:
    """What a cut costs, against the model that was not cut."""
    rounded = _rounded(control)
    before, after = (score(one, windows.inputs, windows.targets) for one in (control, cut))
    alone = None if rounded is None else score(rounded, windows.inputs, windows.targets)
    return Compression(
        model=cut,
        tokenizer=tokenizer,
        before=ratio_of(before.bits(windows), windows.sizes),
        after=ratio_of(after.bits(windows), windows.sizes),
        difference=extra_bits(after, before, windows),
        recall=probe(control, cut, windows),
        documents=len(windows.sizes),
        state_bytes=(state_bytes(control), state_bytes(cut)),
        int8_bytes=None if rounded is None else state_bytes(rounded),
        int8_difference=None if alone is None else extra_bits(alone, before, windows),
        method=method,
        sizes=_sizes(cut),
    )


def extra_bits(after: Scores, before: Scores, windows: Windows) -> Interval:
    """The paired difference of two models in bits a byte."""
    return ratio_of(after.bits(windows) - before.bits(windows), windows.sizes)


def _rounded(model: nn.Module) -> LanguageModel | None:
    """The model with states in int8, if all its layers can have them."""
    if not isinstance(model, LanguageModel) or not set(model.config.pattern) <= ROUNDED:
        return None
    return rounded_model(model)


def _sizes(cut: Any) -> tuple[tuple[int, ...], ...]:
    """What each head keeps, or all heads of a model of transformers."""
    if isinstance(cut, LanguageModel):
        return cut.config.state_sizes
    return ((cut.config.state_size,),) * cut.config.num_hidden_layers


def state_bytes(model: nn.Module) -> int:
    """Bytes that the states which can be cut hold of a sequence, without what short convolutions keep."""
    if not isinstance(model, LanguageModel):
        return cached_bytes(model)
    caches = [block.mixer.initial_cache(1) for block in model.blocks if block.mixer.kind in REDUCIBLE]
    return sum(part.nbytes for cache in caches for part in cache[1:])
