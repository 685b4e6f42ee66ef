"""`statesize truncate`: what a text loses if every layer carries fewer numbers past a cut."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from statesize.cli.shared.options import (
    Count,
    Flag,
    Listed,
    Loading,
    ModelName,
    options_of,
    share,
    whole_numbers,
)
from statesize.cli.shared.printing import REPORTING, Reporting, printed_curves
from statesize.cli.shared.texts import Texts, check_all


def truncate(
    model: ModelName,
    /,
    *,
    texts: Texts | None = None,
    cuts: Listed | None = None,
    number: Count | None = None,
    expected: Flag = False,
    curves: Path | None = None,
    at: str = "1%",
    profile: Path | None = None,
    loading: Loading | None = None,
    printing: Reporting = REPORTING,
) -> None:
    """Test whether ESS suffices: cut all layers to multiples of their ESS, and measure what the rest of the text loses.

    It reads 12 pieces of --max-tokens (or --sequences of them; shorter ones where no text is so long) and cuts each in
    the middle. How far the predictions move is stated as a share of how far they move without the context. With
    hindsight the size is about the least memory that is needed; beside it stands what choices need that know only the
    past.

    Args:
        model: A bundled name (sa, la, gla, gated-deltanet), a folder of a model, a GGUF file, or an id of the Hugging
            Face hub.
        texts: What the model reads.
        cuts: Positions of the cuts in each piece, such as 128,256. Default: its middle.
        number: Also keep this many numbers of every head.
        expected: Also choose tokens by expected attention; takes about a fifth more time.
        curves: File with what `statesize cache MODEL --json` printed of other texts; its curves then say how many
            tokens each cache gets, and its rule which.
        at: Changes of the predictions count as nothing lost up to this share of what the whole context changes.
        profile: Folder of a profile of the same model; its pages then say what suffices.
        loading: How the model is loaded.
        printing: What is printed.

    Raises:
        FileError: The file of curves is none.
    """
    from statesize.measurement.settings import Settings, checked_cuts

    texts, loading = texts or Texts(), loading or Loading()
    settings = Settings(positions=None if cuts is None else whole_numbers("cuts", cuts))
    named = partial(printing.named, f"{Path(model).name}-truncate")
    fitting = partial(checked_cuts, settings, texts.max_tokens)
    negligible, _, printing, _ = check_all(partial(share, "at", at), texts.check, named, fitting)

    from statesize.cli.shared.table import show_page
    from statesize.measurement.statistics import ENOUGH_TOKENS, FEWEST_TEXTS
    from statesize.models.load import model_name
    from statesize.profiling import Profile
    from statesize.texts.documents import vocabulary_size
    from statesize.truncation.page import page, require_model, short_table, with_truncation
    from statesize.truncation.truncate import DOCUMENTS, fitting_tokens
    from statesize.truncation.truncate import truncate as run

    measured = None if profile is None else Profile.load(profile)
    if measured is not None:
        require_model(measured, model_name(model))
    found = None if curves is None else printed_curves(curves)
    printing.hush_libraries()
    loaded = texts.load(model, loading, printing)
    inputs = texts.read_whole(loaded.tokenizer, printing, vocabulary_size(loaded.model))
    size = fitting_tokens(inputs, texts.max_tokens)
    if size < texts.max_tokens:
        printing.say(f"No text has {texts.max_tokens:,} tokens: pieces are of {size:,}.")
        texts = replace(texts, max_tokens=size)
    reached = sum(len(text) >= size for text in inputs)
    texts.tell_few(reached, f"texts of {max(size, ENOUGH_TOKENS)} tokens or more", printing)
    options: dict[str, Any] = {
        "documents": texts.sequences or DOCUMENTS,
        "tokens": texts.max_tokens,
        "settings": settings,
        "number": number,
        "expected": expected,
        "curves": found,
        "tokenizer": loaded.tokenizer,
        "name": loaded.name,
    }
    with printing.bars() as bars:
        update = bars.begin(f"cutting {loaded.name}").update
        result = run(loaded.model, inputs, at=negligible, on_progress=update, **options)
    if profile is not None and measured is not None:
        with_truncation(measured, result).save(profile)
        printing.say(f"Profile: {profile}")
    short = short_table(result) if result.little_text and reached < FEWEST_TEXTS else None
    show_page(page(result), result.to_dict(), printing, short)
    if result.little_text:
        longer = not result.context_matters
        texts.tell_more(inputs, options["documents"], reached, printing, longer=longer, least=1)
        return
    shown = [model, *options_of(texts, loading)] if profile is None else [profile]
    printing.next("profile", *shown, "--open", why="which layers and heads carry what")
