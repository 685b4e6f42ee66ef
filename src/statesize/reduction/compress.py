"""A trained model with smaller states, and its loss of quality."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from statesize.check import refuse, require_count, require_path
from statesize.errors import InputError, ModelError
from statesize.io.devices import on_cpu_by_default
from statesize.io.files import check_new_folder, os_errors, replace_file, replace_folder
from statesize.io.progress import reporting
from statesize.io.text import byte_count
from statesize.measurement.statistics import Interval, finite, texts_of
from statesize.models.load import given_model, model_for_checks
from statesize.operators.transition import CHUNK
from statesize.reduction.hub import reducible
from statesize.reduction.reducible import Reducible, ReductionRequest
from statesize.reduction.windows import (
    IGNORED,
    LOST,
    TOKENS_NEEDED,
    TOKENS_PER_STATE,
    Recall,
    Scores,
    TokenWindows,
    by_document,
    probe,
    ratio_of,
    score,
    text_of,
    three_parts,
)
from statesize.texts.documents import listed, vocabulary_size
from statesize.texts.tokens import AnyTokenizer

LOST_BITS = 0.01
"""Largest loss of a safe cut in bits per byte, compared with the upper end of the interval."""

LENGTH = 256
"""Tokens of the sequences that the model reads by default."""
FEWEST_DOCUMENTS = 50
"""Documents that a verdict takes, of which 40 % are held out."""
_FEWEST_HELD_OUT = 20
# Parts of the work, for progress: the cut, and all, where one model reads the held-out documents in each of the others.
_CUT, _ALL = 8, 16
_TOO_SHORT = "the held-out texts together are shorter than three quarters of a window"
_METHODS = {
    "balanced truncation": "the combinations of a state's numbers that are read most are kept",
    "orthonormal basis": "the combinations of a state's numbers that are read most are kept",
    "selection": "the numbers of a state that are read most are kept",
    "selection with corrected read-out": "some numbers of a state are kept, and the others estimated from them",
    "equal sizes": "as many in each head",
    "sizes by Gramian tail": "more in heads where a cut leaves a larger error",
    "sizes by measured sensitivity": "more in heads whose cut alone costs more",
}


@dataclass(frozen=True, eq=False)
class Compression:
    """A model with smaller states, and its cost on held-out documents.

    Attributes:
        model: The smaller model.
        tokenizer: That of the model.
        before: Bits per byte of the uncut model, which was fine-tuned as much as the smaller one.
        after: Bits per byte of the smaller model.
        difference: Their paired difference.
        worth: What far text is worth to the uncut model, bits per byte: what the last quarters of the windows lose
            where the first ones, half a window back and farther, are not read. NaN where no text is so far.
        recall: Results of the recall probe, by kind.
        documents: Number of held-out documents.
        texts: Number of the texts that these are of; those of one text are one unit.
        state_bytes: Bytes of the states of a sequence before and after.
        int8_bytes: Their bytes if the states of the uncut model were rounded to int8.
        int8_difference: The loss by this rounding alone, in bits per byte; None if the states cannot be rounded.
        method: How the states were cut.
        sizes: State sizes of the heads, a tuple for each layer; one number per layer of a model of transformers.
    """

    model: nn.Module
    tokenizer: AnyTokenizer
    before: Interval
    after: Interval
    difference: Interval
    worth: Interval
    recall: Mapping[str, Recall]
    documents: int
    texts: int
    state_bytes: tuple[int, int]
    int8_bytes: int | None
    int8_difference: Interval | None
    method: str
    sizes: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return f"{self.finding()}\nnext: .model, .recall, .to_dict()"

    def finding(self, of: str = "the model") -> str:
        """What is left of the states, what that costs, what far text was worth, and whether it is safe."""
        before, after = self.state_bytes
        lost, worth = self.difference.value, self.worth
        if math.isnan(worth.value):
            far = f"What text half a window back and farther is worth cannot be told: {_TOO_SHORT}"
        else:
            far = f"Text half a window back and farther is worth {worth:+.4f} bits per byte there"
        if self.difference.low > 0 and worth.low > 0:
            far += f"; the cost is {lost / worth.value:.0%} of that"
        return f"With {after / before:.0%} of its state, {of} {self.cost} over {self.held_out}. {far}. {self.verdict}."

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Each figure by its name, in words."""
        before, after = self.state_bytes
        loss = f"{self.before.value:.4f} to {self.after.value:.4f} bits per byte on {self.held_out}"
        far = f"{self.worth:+.4f} bits per byte: what the last quarter of a window saves by reading the first"
        rows = [
            ("worth of far text", f"not known: {_TOO_SHORT}" if math.isnan(self.worth.value) else far),
            ("loss", f"{loss}: difference {self.difference:+.4f}"),
            ("states", f"{byte_count(before)} to {byte_count(after)} per text, without what short convolutions keep"),
        ]
        if self.int8_bytes is not None and self.int8_difference is not None:
            rows.append(("int8 alone", f"{byte_count(self.int8_bytes)}: {self.int8_difference:+.4f} bits per byte"))
        rows += [("recall", f"{kind.replace('_', ' ')}: {_recalled(recall)}") for kind, recall in self.recall.items()]
        method = ", ".join(_METHODS.get(part, part) for part in self.method.split(", "))
        return [*rows, ("method", method)]

    @property
    def safe(self) -> bool | None:
        """Whether the upper ends of all intervals are small; None if the data do not suffice.

        True if at most 0.01 bits per byte and 0.02 of the recall are lost, for every kind of recall that the uncut
        model has. None with fewer than 20 held-out documents, or if the uncut model recalls nothing; and where little
        is lost if its context may be worth nothing to it, so that nothing could be lost.
        """
        seen = [recall for recall in self.recall.values() if recall.seen]
        if self.needs_more or not seen:
            return None
        small = self.difference.high <= LOST_BITS and all(recall.kept for recall in seen)
        return None if small and not self.worth.low > 0 else small

    @property
    def needs_more(self) -> bool:
        """Whether there are too few documents for a verdict."""
        return self.texts < _FEWEST_HELD_OUT

    @property
    def held_out(self) -> str:
        """What was held out, in words."""
        return texts_of(self.documents, self.texts, "held-out ")

    @property
    def cost(self) -> str:
        """What the cut costs, or gains, in words; without an interval that says so, whether it can be told."""
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if not (low > 0 or high < 0):
            told = "shows no cost" if low <= 0 and self.worth.low > 0 else "has a cost that cannot be told"
            return f"{told} ({value:+z.4f} bits per byte)"
        return f"{'costs' if value > 0 else 'gains'} {abs(value):.4f} bits per byte"

    @property
    def verdict(self) -> str:
        """Whether it is safe, in words; where that is not known, why."""
        if self.safe is not None:
            return "Safe here" if self.safe else "Not safe here"
        if self.needs_more:
            why = f"it takes {FEWEST_DOCUMENTS} texts, of which 40 % are held out"
        elif not any(recall.seen for recall in self.recall.values()):
            why = "the uncut model recalls too little, so it has nothing to lose"
        elif math.isnan(self.worth.value):
            why = f"{_TOO_SHORT}, so what far text is worth cannot be told"
        else:
            why = "text half a window back may be worth nothing here, so that far memory has nothing to lose"
        return f"Too little to tell whether it is safe: {why}"

    def to_dict(self, output: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """The figures as JSON values.

        Args:
            output: The folder of the saved model.

        Returns:
            The output of `statesize compress --json`.
        """
        return {
            "loss_before": self.before.value,
            "loss_after": self.after.value,
            "difference": self.difference.value,
            "interval": self.difference.ends,
            "worth": finite(self.worth.value),
            "worth_interval": self.worth.ends,
            "state_bytes_before": self.state_bytes[0],
            "state_bytes_after": self.state_bytes[1],
            "recall": {
                kind: {name: finite(getattr(recall, name).value) for name in ("before", "after", "lost")}
                | {"interval": recall.lost.ends, "answers": recall.answers, "seen": recall.seen}
                for kind, recall in self.recall.items()
            },
            "safe": self.safe,
            "method": self.method,
            "output": None if output is None else os.fspath(output),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model with its tokenizer and figures; `load` and all commands read it, and transformers its own.

        Args:
            folder: New or empty.

        Raises:
            FileError: The folder is in use, or cannot be written.
        """
        folder = require_path("output", folder)
        check_new_folder(folder)

        def write(temporary: Path) -> None:
            reducible(self.model).save(temporary, self.tokenizer)
            replace_file(temporary / "compression.json", (json.dumps(self.to_dict(), indent=1) + "\n").encode())

        with os_errors(f"cannot write {folder}", "Give a folder that can be written"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(folder, write)


def _recalled(recall: Recall) -> str:
    if not recall.seen and (recall.before.ends or not recall.before.value > LOST):
        return f"the uncut model recalls too few of {recall.answers:,} for a verdict"
    found = f"{recall.before.value:.1%} to {recall.after.value:.1%} of {recall.answers:,}"
    return f"{found}: difference {-recall.lost:+.1%}"


@torch.no_grad()
@on_cpu_by_default
def compress(
    model: nn.Module | str,
    documents: Iterable[str],
    state: float | str = "50%",
    *,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    int8: bool = False,
    fine_tune: int = 0,
    free_basis: bool = False,
    length: int = LENGTH,
    on_progress: Callable[..., None] | None = None,
) -> Compression:
    """Cuts the states of a trained model without training, and measures the loss of quality on held-out documents.

    The documents are split at random: 40 % show which states the outputs depend on (by Gramians, in one pass), 20 %
    choose between three ways to distribute the states over the heads, and the rest measures the loss. Mamba and Mamba-2
    of transformers keep their own code, which has one state size for all layers, unless `free_basis` is set.

    Args:
        model: With layers of "la", "wla", "gla", "gla-s6", "s6", "deltanet" or "gated-deltanet", or Mamba or Mamba-2 of
            transformers, which is not changed; or the name of one, as for `load`.
        documents: Typical text of the model's use: at least 3 different documents, and 50 for a verdict. One or two
            are cut into pieces, and have no intervals.
        state: The new size of the states: a share such as "50%" or 0.5, or the mean size of a head, such as 16.
        tokenizer: That of the model, which a model by its name brings.
        int8: Also round the states to int8 after each token; not for models of transformers.
        fine_tune: Steps of training on the calibration text, for the cut model and the uncut one that it is compared
            with; not for models of transformers.
        free_basis: For Mamba-2, keep the best combinations of its numbers instead of the best numbers. This is more
            accurate, but only statesize can read the folder.
        length: Tokens of the sequences that the model reads, at least 16: each 16th shows a state.
        on_progress: Called as (done, total, what) after each part of the work.

    Returns:
        The smaller model with its loss of quality.

    Raises:
        InputError: `state` or `length` is out of range, or the text is too short.
        ModelError: The model has no states that can be cut, was cut before, or gives numbers that are not finite.

    Example:
        >>> import statesize as ss
        >>> from statesize.texts import bundled
        >>> from transformers import Mamba2Config, Mamba2ForCausalLM, PreTrainedTokenizerFast
        >>> sizes = {"vocab_size": 4096, "hidden_size": 16, "num_hidden_layers": 2}
        >>> shape = Mamba2Config(**sizes, num_heads=2, head_dim=16, n_groups=1, state_size=8)
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=bundled.tokenizer(), eos_token="<eos>")
        >>> texts = [document[:500] for document in bundled.documents()]
        >>> found = ss.compress(Mamba2ForCausalLM(shape), texts, tokenizer=tokenizer)
        >>> found.state_bytes, found.safe
        ((2048, 1024), None)
    """
    steps, tokens = require_count("fine_tune", fine_tune, least=0), require_count("length", length, least=CHUNK)
    if isinstance(model, str):
        unread = reducible_for_checks(model)
        if unread is not None:
            unread.kept(ReductionRequest(state, int8, steps, free_basis))
    loaded = given_model(model, tokenizer, needs_tokenizer=True, as_stored=True)
    uncut, tokenizer = reducible(loaded.model), loaded.tokenizer
    with reporting(on_progress, f"cutting the states of {loaded.name}".removesuffix(" of "), _ALL) as report:

        def on_share(share: float) -> None:
            report(int(share * _CUT), _ALL, "which states matter")

        request = ReductionRequest(state, int8, steps, free_basis, tokens, on_share)
        states = uncut.kept(request)
        if tokenizer is None:
            refuse("tokenizer", "that of the model", None)
        uncut.check_tokenizer(tokenizer)
        calibration, choice, held_out = split_text(uncut, listed("documents", documents), tokenizer, tokens)
        control, cut, method = uncut.cut(states, calibration, choice, request)
        return _compared(control, cut, tokenizer, held_out, method, lambda done, what: report(_CUT + done, _ALL, what))


def reducible_for_checks(model: str) -> Reducible | None:
    """The model of a name before its weights are read; refuse one whose states cannot be cut. None: it is not known."""
    uncut = model_for_checks(model)
    return None if uncut is None else reducible(uncut)


def split_text(
    uncut: Reducible, documents: Sequence[str], tokenizer: AnyTokenizer, length: int
) -> tuple[TokenWindows, TokenWindows, TokenWindows]:
    """Windows by which states are chosen, for the choice of sizes, and held out; refuse too short a text."""
    if uncut.positions is not None and uncut.positions < CHUNK:
        raise ModelError(
            f"model must read at least {CHUNK} tokens, got one of {uncut.positions} positions. Its states cannot be "
            "cut."
        )
    parts = three_parts(documents, tokenizer, min(length, uncut.positions or length))
    size, largest = vocabulary_size(uncut.model), max(int(part.inputs.max()) for part in parts)
    if size is not None and largest >= size:
        raise InputError(
            f"tokenizer must be that of the model, which has {size:,} tokens, got one that gives the id {largest:,}. "
            "Give the model's own."
        )
    tokens, least = int(text_of(parts[0].targets).numel()), TOKENS_PER_STATE * uncut.state_size
    if tokens < least:
        raise InputError(
            f"text must have about {TOKENS_NEEDED * uncut.state_size:,} tokens, {least:,} of them in the 40 % of "
            f"texts by which states are chosen, got {tokens:,} there. Give more text."
        )
    return parts


def _compared(
    control: nn.Module,
    cut: nn.Module,
    tokenizer: AnyTokenizer,
    windows: TokenWindows,
    method: str,
    step: Callable[[int, str], None],
) -> Compression:
    """The loss of quality against the uncut model."""
    uncut, smaller = reducible(control), reducible(cut)
    rounded = uncut.rounded()
    step(0, "held-out documents")
    before, after = (score(model, windows.inputs, windows.targets) for model in (control, cut))
    for when, scores in (("before", before), ("after", after)):
        if not bool(scores.nats.isfinite().all()):
            raise ModelError(
                f"model must have finite scores on the held-out documents, got NaN or infinity {when} the cut. Check "
                "its weights, or load it in float32."
            )
    step(2, "held-out documents in int8")
    after_rounding = None if rounded is None else score(rounded, windows.inputs, windows.targets)
    step(3, "what far text is worth")
    worth = _worth(control, before, windows)
    step(4, "recall")
    recall = probe(control, cut, windows)
    step(8, "recall")
    return Compression(
        model=cut,
        tokenizer=tokenizer,
        before=ratio_of(before.bits(windows), windows.sizes, windows.texts),
        after=ratio_of(after.bits(windows), windows.sizes, windows.texts),
        difference=extra_bits(after, before, windows),
        worth=worth,
        recall=recall,
        documents=len(windows.sizes),
        texts=len(set(cast("list[int]", windows.texts.tolist()))),
        state_bytes=(uncut.state_bytes, smaller.state_bytes),
        int8_bytes=None if rounded is None else reducible(rounded).state_bytes,
        int8_difference=None if after_rounding is None else extra_bits(after_rounding, before, windows),
        method=method,
        sizes=smaller.sizes,
    )


def _worth(model: nn.Module, whole: Scores, windows: TokenWindows) -> Interval:
    """What the last quarters of windows lose where the first ones are not read, bits per byte."""
    length = windows.inputs.shape[1]
    # What is not read is half a window back or farther for each token that is scored.
    start, first = length // 4, length // 4 + length // 2
    alone = score(model, windows.inputs[:, start:], windows.targets[:, start:])
    inputs, targets, document = (one[:, first:] for one in (windows.inputs, windows.targets, windows.document))
    last = replace(windows, inputs=inputs, targets=targets, document=document)
    extra = by_document(alone.nats[:, first - start :] - whole.nats[:, first:], last) / math.log(2)
    tokens, scored = (by_document(one.targets != IGNORED, one) for one in (windows, last))
    # The bytes of a document that are scored are known by its tokens.
    return ratio_of(extra, last.sizes * scored / tokens, last.texts)


def extra_bits(after: Scores, before: Scores, windows: TokenWindows, looks: int = 1) -> Interval:
    """The paired difference of two models in bits per byte, with an interval as of `ratio_interval`."""
    return ratio_of(after.bits(windows) - before.bits(windows), windows.sizes, windows.texts, looks)
