"""ESS against the length of the context: the same futures, read after more and more of the text before them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.quantised import measurable
from statesize.check import refuse, require_count, whole_number
from statesize.codes import Code, Note
from statesize.errors import InputError
from statesize.io.text import counted
from statesize.lab.trends.growth import Growth
from statesize.lab.trends.points import Point, measure_points, point_facts, point_key, point_notes
from statesize.measurement.settings import CUTS, VARIANT, Settings
from statesize.measurement.statistics import FEWEST_TEXTS
from statesize.models.class_sources import tell_without_source
from statesize.models.load import given_model, model_facts, training_record
from statesize.parallel.threads import here
from statesize.texts.documents import configured_context
from statesize.texts.inputs import Inputs, numbered_excerpts, tokens_sha256, whole_texts
from statesize.texts.tokens import AnyTokenizer, beginning_id

EXCERPTS, FUTURE = FEWEST_TEXTS, 256
"""Pieces of text by default, and tokens after the cut at most: singular values of longer futures take hours."""


def length(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    lengths: Sequence[int],
    excerpts: int = EXCERPTS,
    trained_length: int | None = None,
    tokenizer: AnyTokenizer | Callable[..., Any] | None = None,
    name: str | None = None,
    output: str | os.PathLike[str] | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: Settings | None = None,
) -> Growth:
    """Measure how the effective state-size (ESS) of each layer grows with the length of the context.

    The texts are cut into pieces, the *excerpts*, of the longest context and `future` tokens after it. For each length
    n the model reads the last n tokens before the cut and the same tokens after it, and the block H_i at the cut i = n
    is measured. So the futures are the same at all lengths, and so is their number of tokens: with a longer future ESS
    would grow too. A length for which the texts are too short, or which the model refuses, is left out and named.

    Args:
        model: As for `statesize.profile`.
        inputs: As for `statesize.profile`; None takes all bundled documents as one text.
        lengths: Tokens of the contexts.
        excerpts: How many pieces of text are read at most, from all parts of the texts. They do not overlap.
        trained_length: Tokens of the sequences that the model was trained on; no exponent is fitted across it. None
            takes the model's configuration, and fits all lengths where it says nothing.
        tokenizer: As for `statesize.profile`.
        name: As for `statesize.profile`.
        output: Folder in which finished lengths are kept; the same call after a crash goes on from there.
        on_progress: Called as (done, total, what, seconds left) after each length, instead of a bar.
        settings: What is measured of each layer, without a variant. `future` is the number of tokens after the cut,
            which ESS cannot pass; None takes as many as the longest context within the trained length, 256 at most, and
            fewer where the texts have no room for them. The lengths say where the texts are cut.

    Returns:
        ESS at each length, with exponents.

    Raises:
        InputError: If the lengths are not at least 2 different numbers, another number is below 1, or the texts are too
            short for two lengths.
        StatesizeError: If no length can be measured.

    Example:
        >>> silent = lambda *_: None
        >>> measured = length("gla", lengths=[8, 16], excerpts=2, settings=Settings(future=8), on_progress=silent)
        >>> measured.places, measured.values("layers.0.mixer").shape
        ((8, 16), (2, 2))
    """
    asked_for, excerpts = _lengths(lengths), require_count("excerpts", excerpts)
    trained_length = None if trained_length is None else require_count("trained_length", trained_length)
    settings = (settings or Settings()).without("length", *CUTS, *VARIANT)
    given = given_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    trained = trained_length or known_trained_length(given.model, model if isinstance(model, str) else None)
    model, tokenizer = measurable(given.model), given.tokenizer
    texts = whole_texts(inputs, tokenizer)
    wanted = settings.future or min(
        max((one for one in asked_for if trained is None or one <= trained), default=asked_for[-1]), FUTURE
    )
    future = settings.future or max(min(wanted, max(map(len, texts)) - asked_for[-1]), min(wanted, _LEAST_FUTURE))
    longest = max(map(len, texts)) - future
    fitting = fitting_lengths(asked_for, texts, future)
    numbered = numbered_excerpts(texts, fitting[-1] + future, excerpts, tokenizer)
    pieces = tuple(piece for _, piece in numbered)
    work = LengthWork(model, pieces, future, settings, begun=beginning_id(tokenizer) is not None)
    name = given.name or type(model).__name__
    if output is not None:
        tell_without_source(model)
    points, skipped = measure_points(
        fitting, work, work.key, here, title=f"measuring {name}", output=output, on_progress=on_progress
    )
    too_short = Note(Code.NOT_MEASURED, f"The longest text has room for {longest} tokens.")
    too_long = {str(one): too_short for one in asked_for if one > longest}
    beyond = ", ".join(f"{one:,}" for one in points if trained is not None and one > trained)
    shorter = f"Only {future} tokens behind the cut, not {wanted}: the longest text has room for no more."
    return Growth(
        model=name,
        names=tuple(map(str, points)),
        places=tuple(points),
        future=future,
        trained_length=trained,
        sources=tuple(number for number, _ in numbered),
        points=tuple(points.values()),
        skipped=skipped | too_long,
        facts=point_facts(pieces, settings),
        notes=point_notes(points)
        + ((f"Beyond the trained length of {trained:,}: {beyond}; not in the exponents.",) if beyond else ())
        + ((shorter,) if future < wanted else ()),
    )


def fitting_lengths(lengths: Sequence[int], texts: Sequence[Tensor], future: int | None) -> tuple[int, ...]:
    """Those that fit into the longest text before a future, at least two; without a future, before the least one."""
    asked_for = _lengths(lengths)
    given, future = future, min(asked_for[0], _LEAST_FUTURE) if future is None else future
    longest = max(map(len, texts))
    fitting = tuple(one for one in asked_for if one + future <= longest)
    if len(fitting) < 2:
        # With half of it the text has room for a future as long as the least length, or for the one that is given.
        most = longest // 2 if given is None else longest - given
        shorter = f", or --lengths {most // 2},{most} (lengths=)" if most > 1 else ""
        raise InputError(
            f"lengths must hold two that fit into the texts with a future of {future}, of which the longest has "
            f"{counted(longest, 'token')}, got {', '.join(map(str, asked_for))}. Give a text of "
            f"{asked_for[1] + future:,} tokens or more{shorter}."
        )
    return fitting


# Tokens after the cut of texts that have no room for more.
_LEAST_FUTURE = 64


def known_trained_length(model: nn.Module, source: str | None) -> int | None:
    """Tokens of the sequences that a model was trained on, or that its positions allow; None where it does not say."""
    data = training_record(source).get("data") if source is not None else None
    known = cast("dict[str, Any]", data).get("length") if isinstance(data, dict) else None
    if isinstance(known, int) and known > 0:
        return known
    return configured_context(getattr(model, "config", None))


@dataclass(frozen=True, eq=False)
class LengthWork:
    """Measures a model after contexts of one length after another.

    Attributes:
        excerpts: Token ids (longest + future,) each; the cut lies before the last `future` tokens.
        begun: Whether their first token begins a text, as it then does in shorter contexts too.
    """

    model: nn.Module
    excerpts: tuple[Tensor, ...]
    future: int
    settings: Settings
    begun: bool = False

    def inputs(self, context: int) -> list[Tensor]:
        """The texts of a length, (context + future,) each."""
        first = int(self.begun)
        return [torch.cat([ids[:first], ids[first - context - self.future :]]) for ids in self.excerpts]

    def __call__(self, context: int) -> Iterator[Point]:
        """The point of a length."""
        settings = replace(self.settings, positions=(context,), future=self.future)
        yield Point.measured(self.model, self.inputs(context), settings)

    @cached_property
    def _model(self) -> dict[str, Any]:
        return model_facts(self.model)

    def key(self, context: int) -> str:
        """The name of its point, with a digest of all that its numbers depend on."""
        texts = tokens_sha256(self.inputs(context))
        return point_key(
            f"{context:09d}", model=self._model, tokens=texts, future=self.future, asked=asdict(self.settings)
        )


def _lengths(listed: Sequence[int]) -> tuple[int, ...]:
    numbers = {whole_number(one) for one in listed}
    known = sorted(number for number in numbers if number is not None and number > 0)
    if len(known) < 2 or len(known) < len(numbers):
        refuse("lengths", "at least two different numbers of tokens, each at least 1", list(listed))
    return tuple(known)
