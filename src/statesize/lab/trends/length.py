"""ESS against the length of the context: the same futures, read after more and more of the text before them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.check import refuse, require_count, several
from statesize.lab.trends.growth import exponent_of
from statesize.lab.trends.trend import AVERAGE, Trend, measured_rows
from statesize.measurement.settings import CUTS, VARIANT, Settings
from statesize.measurement.statistics import FEWEST_TEXTS
from statesize.models.load import given_model
from statesize.models.plugins import plugin_of
from statesize.profiling.profile import Profile
from statesize.profiling.profile_run import ProfileProgress
from statesize.profiling.run import run_profile
from statesize.texts.documents import context_length
from statesize.texts.inputs import Inputs, numbered_excerpts, whole_texts
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
    tokenizer: AnyTokenizer | None = None,
    name: str | None = None,
    output: str | os.PathLike[str] | None = None,
    on_progress: Callable[[ProfileProgress], None] | None = None,
    settings: Settings | None = None,
) -> Trend:
    """Measure how the effective state-size (ESS) of each layer grows with the length of the context.

    The texts are cut into pieces, the *excerpts*, of the longest context and `future` tokens after it. For each length
    n the model reads the last n tokens before the cut and the same tokens after it, and H_n is measured. A length that
    the model refuses is left out and named, and so is a layer that is not measured at all lengths.

    Args:
        model: As for `statesize.profile`.
        inputs: As for `statesize.profile`; None takes all bundled documents.
        lengths: Tokens of the contexts.
        excerpts: How many pieces of text are read at most, from all parts of the texts. They do not overlap.
        trained_length: Tokens of the sequences that the model was trained on; no exponent is fitted across it. None
            takes the model's configuration, and fits all lengths where it says nothing.
        tokenizer: As for `statesize.profile`.
        name: As for `statesize.profile`.
        output: Folder for the profile at each length; the same call after a crash goes on from there.
        on_progress: As for `statesize.profile`.
        settings: What is measured of each layer, without a variant or cuts. `future` is the number of tokens after the
            cut; None takes as many as the longest context within the trained length, 256 at most.

    Returns:
        The trend, with the exponent of each layer up to the trained length.

    Example:
        >>> silent = lambda *_: None
        >>> measured = length("gla", lengths=[8, 16], excerpts=2, settings=Settings(future=8), on_progress=silent)
        >>> measured.values("layers.0.mixer").shape
        (2, 2)
    """
    numbers = several("lengths", lengths, "numbers of tokens such as [64, 128, 256]")
    contexts, excerpts = sorted({require_count("lengths", n) for n in numbers}), require_count("excerpts", excerpts)
    settings = (settings or Settings()).without("length", *CUTS, *VARIANT)
    given = given_model(model, tokenizer, name, needs_tokenizer=inputs is None)
    known = known_trained_length(given.model, model if isinstance(model, str) else None)
    trained_length = known if trained_length is None else require_count("trained_length", trained_length)
    within = [n for n in contexts if n <= (trained_length or n)] or contexts
    future, texts = settings.future or min(within[-1], FUTURE), whole_texts(inputs, given.tokenizer)
    settings = replace(settings, future=future, relative_tolerances=settings.ratios)
    room = max(map(len, texts)) - future
    if contexts[-1] > room:
        refuse("lengths", f"at most {room} tokens, as many as the longest text has before the last {future}", contexts)
    numbered = numbered_excerpts(texts, contexts[-1] + future, excerpts, given.tokenizer)
    # A piece that begins as the tokenizer begins a text does so after shorter contexts too.
    begun, called = int(beginning_id(given.tokenizer) is not None), given.name or type(given.model).__name__
    options: dict[str, Any] = {"tokenizer": given.tokenizer, "name": called, "on_progress": on_progress}

    def measured(context: int, folder: Path | None) -> Profile:
        ids = [torch.cat([piece[:begun], piece[begun - context - future :]]) for _, piece in numbered]
        return run_profile(given.model, ids, replace(settings, positions=(context,)), output=folder, **options)

    points = {n: (str(n), n) for n in contexts}
    trend = Trend("length", *measured_rows(points, measured, [text for text, _ in numbered], output))
    places = trend.rows["place"].unique().tolist()
    trained = [n for n in places if n <= (trained_length or n)]
    values = {layer: (trend.values(layer), trend.values(layer, "ceiling").mean(1)) for layer in trend.layers}
    exponents = {
        layer: exponent_of(trained, ess[: len(trained)], ceilings[: len(trained)], trend.texts(layer))
        for layer, (ess, ceilings) in values.items()
    }
    means, last = values[AVERAGE][0].mean(1), max(len(trained), 1) - 1
    ends = f"from {means[0]:.1f} after {places[0]:,} tokens to {means[last]:.1f} after {places[last]:,}"
    told = f"ESS of {called} goes {ends}; exponent: {exponents[AVERAGE]}."
    facts = {"model": called, "future": future, "excerpts": len(numbered), "trained_length": trained_length}
    return replace(trend, analysis=exponents, facts={"headline": told, **facts})


def known_trained_length(model: nn.Module, source: str | None) -> int | None:
    """Tokens of the sequences that a model was trained on, or that its positions allow; None where it does not say."""
    plugin = None if source is None else plugin_of(source)
    known = None if source is None or plugin is None else plugin.record(source).get("data", {}).get("length")
    return known or context_length(model)
