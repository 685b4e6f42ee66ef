"""`statesize.compress`: a trained model with smaller states, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from statesize.check import require_count
from statesize.compression.healing import text_of
from statesize.compression.kinds import reducible
from statesize.compression.reducible import Reducible, Request
from statesize.compression.result import Compression
from statesize.compression.scoring.paired import ratio_of
from statesize.compression.scoring.recall import probe
from statesize.compression.scoring.scores import Scores, score
from statesize.compression.scoring.windows import Windows, three_parts
from statesize.errors import InputError
from statesize.interval import Interval
from statesize.lab.tasks.language.corpus import listed
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
    free_basis: bool = False,
    length: int = 256,
) -> Compression:
    """Cuts the states of a trained model, without training, and measures what that costs on held-out documents.

    The documents are parted at random: 40 % show which states carry what outputs read (by Gramians, in one pass), 20 %
    choose between three ways to spread the states over the heads, and the rest tells the cost. Mamba and Mamba-2 of
    transformers keep their own code, which has one size of state for all layers, unless `free_basis` is asked for.

    Args:
        model: With layers of "la", "wla", "gla", "gla-s6", "s6", "deltanet" or "gated-deltanet", or Mamba or Mamba-2 of
            transformers; it is not changed.
        tokenizer: That of the model.
        documents: Text as the model is used for, at least 3 different documents, and 50 for a verdict.
        state: What to keep of the states: a share such as "50%" or 0.5, or the mean size of a head, such as 16.
        int8: Also round the states to int8 after each token; not of transformers' models.
        fine_tune: Steps of training on the calibration text, of the cut model and of the uncut one it is compared with;
            likewise.
        free_basis: Of Mamba-2, keep the best combinations of its numbers instead of the best numbers. It stays nearer
            to the whole model, and the folder is read by statesize only.
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
    steps, tokens = require_count("fine_tune", fine_tune, least=0), require_count("length", length, least=2)
    whole, request = reducible(model), Request(state, int8, steps, free_basis, tokens)
    kept = whole.kept(request)
    whole.check_tokenizer(tokenizer)
    calibration, choice, held_out = split_text(whole, tokenizer, listed("documents", documents), tokens)
    control, cut, method = whole.cut(kept, calibration, choice, request)
    return _compared(control, cut, tokenizer, held_out, method)


def split_text(
    whole: Reducible, tokenizer: AnyTokenizer, documents: Sequence[str], length: int
) -> tuple[Windows, Windows, Windows]:
    """Windows for the Gramians, for the choice of sizes, and held out; refuse a text too short for the first."""
    parts = three_parts(documents, tokenizer, min(length, whole.positions or length))
    size, largest = vocabulary_size(whole.model), max(int(part.inputs.max()) for part in parts)
    if size is not None and largest >= size:
        raise InputError(
            f"tokenizer must be that of the model, which has {size:,} tokens, got one that gives the id {largest:,}. "
            "Give the model's own."
        )
    tokens, least = int(text_of(parts[0].targets).numel()), _TOKENS_PER_STATE * whole.state_size
    if tokens < least:
        raise InputError(
            f"text must have at least {least} tokens among the 40 % of its documents for the Gramians, got {tokens}. "
            "Give more text."
        )
    return parts


def _compared(
    control: nn.Module, cut: nn.Module, tokenizer: AnyTokenizer, windows: Windows, method: str
) -> Compression:
    """What a cut costs, against the model that was not cut."""
    whole, smaller = reducible(control), reducible(cut)
    rounded = whole.rounded()
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
        state_bytes=(whole.state_bytes, smaller.state_bytes),
        int8_bytes=None if rounded is None else reducible(rounded).state_bytes,
        int8_difference=None if alone is None else extra_bits(alone, before, windows),
        method=method,
        sizes=smaller.sizes,
    )


def extra_bits(after: Scores, before: Scores, windows: Windows) -> Interval:
    """The paired difference of two models in bits a byte."""
    return ratio_of(after.bits(windows) - before.bits(windows), windows.sizes)
