"""A model that reads a stream of text: its tokens as they become certain, readings, and how the model goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters import Captured, CheckPolicy
from statesize.adapters.models.held import device_of, logits_of, measuring, pretrained_models
from statesize.adapters.selection import NothingMeasuredError
from statesize.check import require_count
from statesize.errors import InputError, ModelError
from statesize.measurement.settings import check_settings
from statesize.measurement.statistics import draw, estimate
from statesize.profiling.measuring import captured_mixers, measure_captured
from statesize.texts.rows import BLANK_LINES
from statesize.texts.tokens import AnyTokenizer, beginning_id, plain_ids, special_ids, token_text

_FIRST_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
# The last word may go on, and white space may turn out to be the end of a document.
_UNFINISHED = re.compile(r"\s+\S*\Z")
# Letters without white space, as of Chinese, after which a word is not waited for, and how many are held back then.
_LONGEST_WORD, _HELD_BACK = 256, 32
# Letters of a document from which on it is cut, so that it is not encoded from its beginning each time.
_LONGEST_PART = 4096


@dataclass(eq=False)
class TextStream:
    """Text on its way to a model, cut into tokens as `join_documents` does; blank lines part documents.

    Attributes:
        special_tokens: Read special tokens that the text spells as such, and add no end-of-sequence token.
        _text: What has come of the open document since it was cut.
        _given: How many of its tokens were yielded.
    """

    # A token is yielded once white space has followed its word, so that no later text changes it. Where the tokenizer
    # has no end-of-sequence token, or the text says by special tokens where documents end, blank lines are text.

    tokenizer: AnyTokenizer
    special_tokens: bool = False
    _end: list[int] = field(init=False)
    _beginning: list[int] = field(init=False)
    _special: tuple[str, ...] = field(default=(), init=False)
    _text: str = field(default="", init=False)
    _given: int = field(default=0, init=False)
    _cut: bool = field(default=False, init=False)
    _first: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        end, beginning = special_ids(self.tokenizer)[1].get("eos"), beginning_id(self.tokenizer)
        self._end = [] if end is None or self.special_tokens else [end]
        self._beginning = [] if beginning is None else [beginning]
        if self.special_tokens:
            self._special = tuple(token_text(self.tokenizer, token) for token in special_ids(self.tokenizer)[0])

    def feed(self, text: str) -> list[int]:
        """Takes more text, with line feeds as line ends; the tokens that became certain."""
        self._text += text
        ids = self._documents()
        unfinished = _UNFINISHED.search(self._text)
        known = unfinished.start() if unfinished else 0
        if len(self._text) - known > _LONGEST_WORD:
            known = len(self._text) - _HELD_BACK
        while (outside := self._outside_special_tokens(known)) < known:
            unfinished = _UNFINISHED.search(self._text[:outside])
            known = unfinished.start() if unfinished else 0
        ids += self._new(self._text[:known])
        if known > _LONGEST_PART:
            self._text, self._given, self._cut = self._text[known:], 0, True
        return self._begun(ids)

    def end(self) -> list[int]:
        """Ends the text; the tokens that were not yielded, with the one that ends the last document."""
        return self._begun([*self._documents(), *self._finished(self._text)])

    def _documents(self) -> list[int]:
        """What is new of the documents that a blank line has ended; the text is what follows."""
        if not self._end:
            return []
        if not self._first and not self._cut:
            self._text = _FIRST_BLANK_LINES.sub("", self._text)
        *whole, self._text = BLANK_LINES.split(self._text)
        ids: list[int] = []
        for document in whole:
            ids += self._finished(document)
            self._given, self._cut, self._first = 0, False, False
        return ids

    def _finished(self, document: str) -> list[int]:
        document = document.rstrip("\n") if self._end else document
        return self._new(document) + self._end if document.strip() or self._given or self._cut else []

    def _new(self, document: str) -> list[int]:
        """The tokens of the open document, as far as it is known, that were not yielded."""
        document = document.lstrip("\n") if self._end and not self._cut else document
        ids = plain_ids(self.tokenizer, document, self.special_tokens) if document.strip() or self._cut else []
        new, self._given = ids[self._given :], max(self._given, len(ids))
        return new

    def _outside_special_tokens(self, offset: int) -> int:
        """An offset at or before another that cuts no special token of the text."""
        starts = (
            start
            for text in self._special
            for start in range(max(offset - len(text) + 1, 0), offset)
            if self._text.startswith(text, start) or text.startswith(self._text[start:])
        )
        return min(starts, default=offset)

    def _begun(self, ids: list[int]) -> list[int]:
        if ids:
            begins = self.special_tokens and ids[:1] == self._beginning
            ids, self._beginning = ids if begins else self._beginning + ids, []
        return ids


def generate(model: nn.Module, prompt: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest next tokens one after another; fewer where the model ends its text."""
    if not prompt:
        raise InputError("prompt must hold at least one token, got none. Write a text to standard input.")
    ids = torch.tensor(prompt, device=device_of(model))[None]
    with measuring(model):
        if callable(getattr(model, "initial_caches", None)):
            return _by_steps(model, ids[0], require_count("count", count))
        if pretrained_models(model):
            options = {"do_sample": False, "max_new_tokens": require_count("count", count), "use_cache": True}
            tokens: Tensor = cast("Any", model).generate(ids, attention_mask=torch.ones_like(ids), **options)
            return [int(token) for token in tokens[0, len(prompt) :]]
    raise InputError(f"generate needs a language model of statesize or transformers, got {type(model).__name__}.")


def disagreements(model: nn.Module, prompt: Sequence[int], generated: Sequence[int]) -> int:
    """How many generated tokens are not the likeliest ones of a full pass over prompt and tokens, without a cache."""
    ids = torch.tensor([*prompt, *generated], device=device_of(model))[None]
    with measuring(model):
        logits = logits_of(model, ids, last=len(generated) + 1)
    likeliest = logits[0, :-1].argmax(-1)
    return int((likeliest != ids[0, len(prompt) :]).sum())


def _by_steps(model: Any, prompt: Tensor, count: int) -> list[int]:
    caches, generated = model.initial_caches(1), list[int]()
    logits = prompt.new_zeros(())
    for token in prompt:
        logits, caches = model.step(token[None], caches)
    while True:
        generated.append(int(logits[0].argmax()))
        if len(generated) == count:
            return generated
        logits, caches = model.step(prompt.new_tensor([generated[-1]]), caches)


@dataclass(frozen=True)
class LayerReading:
    """One layer at one cut, averaged over its heads or channels."""

    name: str  # the mixer's name
    kind: str  # what it is
    entropy: float  # entropy-ESS
    count: float  # number of Hankel singular values above 0.01 σ_1
    ceiling: int  # the most that TSS, past and future allow
    norm: float  # frobenius norm of the block


@dataclass(frozen=True)
class Reading:
    """All layers at one cut."""

    position: int  # the cut: tokens before it, from the beginning of the stream
    token: int  # id of the token that follows it
    layers: tuple[LayerReading, ...]  # one entry a mixer, in the order of their calls


@dataclass(eq=False)
class Watch:
    """A model that reads a stream of tokens.

    A cut is measured as soon as the `future` tokens after it are there, and once: T of a causal model does not change
    in the rows that were there. The block is T[i:i+future, :i], with all that the model has read as its past. Once
    `context` tokens are read, the older half is forgotten and the model reads the other half as its beginning.

    Attributes:
        model: As for `statesize.profile`.
        future: Rows of each block.
        channels: Heads or channels that are measured of each mixer, at most.
        context: Most tokens that the model reads at once, at least four times `future`.
        seed: Seed of the choice of heads or channels.
        skipped: What was not measured so far, and why.

    Example:
        >>> from statesize.lab import zoo
        >>> watch = Watch(zoo.load("gla")[0], future=4)
        >>> [reading.position for reading in watch.read([5, 6, 7, 8, 9, 10])]
        [1, 2]
        >>> [reading.position for reading in watch.read([11])]
        [3]
    """

    model: nn.Module
    future: int = 16
    channels: int = 8
    context: int = 512
    seed: int = 0
    skipped: dict[str, str] = field(default_factory=dict[str, str], init=False)
    _window: list[int] = field(default_factory=list[int], init=False)
    _start: int = field(default=0, init=False)
    _next: int = field(default=1, init=False)
    _checking: CheckPolicy = field(default_factory=lambda: CheckPolicy("none"), init=False)

    def __post_init__(self) -> None:
        for name, least in (("future", 1), ("channels", 1), ("seed", 0)):
            require_count(name, getattr(self, name), least)
        if self.context < max(4 * self.future, 8):
            raise InputError(
                f"context must be at least 8 tokens and four times the future of {self.future}, so that a past is left "
                f"after half of it was forgotten, got {self.context}."
            )

    def read(self, ids: Sequence[int]) -> Iterator[Reading]:
        """More tokens; the model runs once for each eighth of a context of them, and for what is left."""
        # Errors are those of `statesize.profile`.
        step = self.context // 8
        for first in range(0, len(ids), step):
            self._window += ids[first : first + step]
            if len(self._window) > self.context:
                forgotten = len(self._window) - self.context // 2
                self._start += forgotten
                del self._window[:forgotten]
            yield from self._measured()

    def _measured(self) -> Iterator[Reading]:
        cuts = list(range(self._next - self._start, len(self._window) - self.future + 1))
        if not cuts:
            return
        checks = self._checking.for_run(self.model)
        before, self._next = self._next, self._next + len(cuts)
        try:
            captured = captured_mixers(self.model, torch.tensor(self._window)[None], None, checks, sequence=0)
            layers = [self._layer(item, cuts) for item in captured]
        except NothingMeasuredError as error:
            # A later part of the text may do; where nothing was read before, it is the model.
            if before == 1:
                raise
            self.skipped |= error.skipped
            return
        self.skipped |= captured.skipped
        for cut, at in zip(cuts, zip(*layers, strict=True), strict=True):
            yield Reading(self._start + cut, self._window[cut], at)

    def _layer(self, item: Captured, cuts: list[int]) -> list[LayerReading]:
        sample = draw(item.units, self.channels, self.seed, item.name)
        # A few rows of T each: the definition is as fast as any engine.
        settings = check_settings((), (0.01,), cuts, "dense", future=self.future)
        (measurement,) = measure_captured(item, sample.units, settings, sequence=0)
        entropy, counts = measurement.entropy, measurement.relative_count
        if entropy is None or counts is None:
            raise ModelError("the measurement lacks an output that a reading holds")
        by_unit = [entropy, counts[..., 0], measurement.norm]

        def mean(values: Tensor) -> float:
            return estimate(values.double().cpu().numpy(), sample).mean

        return [
            LayerReading(
                item.name,
                item.kind,
                *(mean(values[0, :, index]) for values in by_unit[:2]),
                ceiling=int(measurement.ceiling[index]),
                norm=mean(by_unit[2][0, :, index]),
            )
            for index in range(len(cuts))
        ]
