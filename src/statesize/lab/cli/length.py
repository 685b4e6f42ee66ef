"""`statesize length`: ESS against the length of the context."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from statesize.cli.shared.options import Count, Loading, Measuring, whole_numbers
from statesize.cli.shared.printing import TEXT, Printing
from statesize.cli.shared.texts import Texts

if TYPE_CHECKING:
    from statesize.lab.trends.growth import Growth


def length(
    model: str,
    /,
    *,
    lengths: str,
    trained_length: Count | None = None,
    excerpts: Count = 8,
    texts: Texts | None = None,
    measuring: Measuring | None = None,
    loading: Loading | None = None,
    output: Path | None = None,
    html: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Measure how ESS of each layer and head grows with the length of the context.

    Each length reads the same pieces of text up to the same cut, with the same tokens behind it (--future, 64 if not
    given). With --output, what is finished is kept while it runs.

    Args:
        model: A bundled name (sa, la, wla, gla), a folder of a model, or an id of the Hugging Face hub.
        lengths: Tokens of the contexts, with commas between them, such as 64,128,256.
        trained_length: Tokens of the sequences that the model was trained on; no exponent is fitted across it. Default:
            the model's configuration.
        excerpts: Pieces of text that are read at most, of the longest context and the future each.
        texts: What the model reads. Default: all bundled documents as one text.
        measuring: What is measured.
        loading: How the model is loaded.
        output: Folder for finished lengths.
        html: File for a page.
        printing: What is printed.

    Raises:
        InputError: If the lengths are no numbers, or there are positions.
    """
    from statesize.cli.shared.table import print_finding
    from statesize.errors import InputError
    from statesize.lab.trends.length import FUTURE, known_trained_length, length
    from statesize.lab.trends.series import trend_bar
    from statesize.models.load import load_model
    from statesize.report import check_report_path
    from statesize.texts.documents import vocabulary_size

    texts, measuring, loading = texts or Texts(), measuring or Measuring(), loading or Loading()
    if (measuring.positions, measuring.stride, measuring.past) != (None, None, None):
        raise InputError("positions, stride and past must be left out: the lengths say where the texts are cut.")
    chosen = whole_numbers("lengths", lengths)
    future = measuring.future or FUTURE
    if html is not None:
        check_report_path(html)
    texts.check()
    printing.hush_libraries()
    loaded = load_model(model, **asdict(loading), needs_tokenizer=texts.ids is None)
    enough = replace(texts, max_tokens=max(texts.max_tokens, excerpts * (max(chosen) + future)))
    ids = enough.read(loaded.tokenizer, printing, vocabulary_size(loaded.model)).ids if texts.any_chosen else None
    left_out = ("positions", "stride", "past", "future")
    options = {name: value for name, value in asdict(measuring).items() if name not in left_out}
    with printing.bars() as bars:
        report_progress = trend_bar(bars, f"measuring {loaded.name}", len(set(chosen)))
        known = trained_length or known_trained_length(loaded.model, model)
        result = length(
            loaded.model, ids, lengths=chosen, future=future, excerpts=excerpts, trained_length=known,
            tokenizer=loaded.tokenizer, name=loaded.name, output=output, on_progress=report_progress, **options,
        )  # fmt: skip
    print_finding(result, *_table(result), 1, html, printing)


def _table(result: Growth) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, a row a layer, and notes."""
    from statesize.lab.trends.trend import AVERAGE
    from statesize.measurement.statistics import signed

    rows: list[list[str]] = []
    for layer in (AVERAGE, *result.layers):
        one = result.exponent(layer)
        rows.append([layer, *(f"{mean:.1f}" for mean in result.means(layer)), signed(one.whole), one.course])
    beyond = ", ".join(str(context) for context in result.lengths if context not in result.trained)
    notes = list(result.notes)
    if beyond:
        notes.append(f"Beyond the trained length of {result.trained_length}: {beyond}; not in the exponents.")
    notes.append(f"Intervals of 95 % are over {result.excerpts} excerpts (Student’s t).")
    headings = ["layer", *(f"{context:,}" for context in result.lengths), "exponent", "course"]
    return headings, rows, notes
