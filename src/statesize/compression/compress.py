"""`statesize.compress`: a trained model with smaller states, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer

from statesize.check import real_number, refuse, require_count, require_kind
from statesize.compression.healing import fine_tuned, text_of
from statesize.compression.proposals import Ranking
from statesize.compression.result import Compression
from statesize.compression.scoring.paired import ratio_of
from statesize.compression.scoring.recall import probe
from statesize.compression.scoring.scores import Scores, score
from statesize.compression.scoring.windows import Windows, three_parts
from statesize.compression.shrinking import rounded_model
from statesize.errors import InputError, ModelError
from statesize.interval import Interval
from statesize.mixers.config import REDUCIBLE, ROUNDED, ModelConfig
from statesize.mixers.model import LanguageModel
from statesize.tasks.corpus import listed
from statesize.texts.tokens import AnyTokenizer

# Tokens of the calibration text for each number of a head's state: both Gramians must have full rank.
_TOKENS_PER_STATE = 16


@torch.no_grad()
def compress(
    model: LanguageModel,
    tokenizer: Tokenizer,
    documents: Iterable[str],
    state: float | str = "50%",
    *,
    int8: bool = False,
    fine_tune: int = 0,
    length: int = 256,
) -> Compression:
    """Cuts the states of a trained model, without training, and measures what that costs on held-out documents.

    The documents are parted at random: 40 % show which states carry what outputs read (by Gramians, in one pass), 20 %
    choose between three ways to spread the states over the heads, and the rest tells the cost.

    Args:
        model: With layers of "la", "wla", "gla", "gla-s6" or "s6"; it is not changed.
        tokenizer: That of the model.
        documents: Text as the model is used for, at least 3 different documents, and 50 for a verdict.
        state: What to keep of the states: a share such as "50%" or 0.5, or the mean size of a head, such as 16.
        int8: Also round the states to int8 after each token.
        fine_tune: Steps of training on the calibration text, of the cut model and of the uncut one it is compared with.
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
    total = check_model(model, state, int8)
    require_kind("tokenizer", tokenizer, Tokenizer, "a Tokenizer of the library tokenizers")
    steps = require_count("fine_tune", fine_tune, least=0)
    length = require_count("length", length, least=2)
    calibration, choice, held_out = split_text(model, tokenizer, listed("documents", documents), length)
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
    model: LanguageModel, tokenizer: AnyTokenizer, documents: Sequence[str], length: int
) -> tuple[Windows, Windows, Windows]:
    """Windows for the Gramians, for the choice of sizes, and held out; refuse a text too short for the first."""
    parts = three_parts(documents, tokenizer, min(length, model.config.positions or length))
    tokens, least = int(text_of(parts[0].targets).numel()), _TOKENS_PER_STATE * model.config.key_size
    if tokens < least:
        raise InputError(
            f"text must have at least {least} tokens among the 40 % of its documents for the Gramians, got {tokens}. "
            "Give more text."
        )
    return parts


def check_model(model: object, state: float | str, int8: bool = False) -> int:
    """How many states are kept of all heads; refuse a model without states to cut, and sizes that it cannot have."""
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"model must be one that statesize trains, with layers of {', '.join(REDUCIBLE)}, got "
            f"{type(model).__name__}. Its states cannot be cut."
        )
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
    control: LanguageModel, cut: LanguageModel, tokenizer: Tokenizer, windows: Windows, method: str
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
        sizes=cut.config.state_sizes,
    )


def extra_bits(after: Scores, before: Scores, windows: Windows) -> Interval:
    """The paired difference of two models in bits a byte."""
    return ratio_of(after.bits(windows) - before.bits(windows), windows.sizes)


def _rounded(model: LanguageModel) -> LanguageModel | None:
    """The model with states in int8, if all its layers can have them."""
    return rounded_model(model) if set(model.config.pattern) <= ROUNDED else None


def state_bytes(model: LanguageModel) -> int:
    """Bytes that the states which can be cut hold of a sequence, without what short convolutions keep."""
    caches = [block.mixer.initial_cache(1) for block in model.blocks if block.mixer.kind in REDUCIBLE]
    return sum(part.nbytes for cache in caches for part in cache[1:])
