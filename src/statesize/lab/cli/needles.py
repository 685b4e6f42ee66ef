"""`statesize needles`: does a model retrieve what was said some tokens ago, and which heads carry it?"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from statesize.cli.shared.options import AtLeastTwo, Count, Loading, Page, Seed, whole_numbers
from statesize.cli.shared.printing import TEXT, Printing
from statesize.cli.shared.texts import Texts

if TYPE_CHECKING:
    from statesize.lab.retrieval.result import Needles

# Heads of each depth that the table shows.
_SHOWN = 4


def needles(
    model: str,
    /,
    *,
    depths: str = "16,64,192",
    context: AtLeastTwo = 256,
    future: Count = 32,
    excerpts: AtLeastTwo = 32,
    seed: Seed = 0,
    texts: Texts | None = None,
    loading: Loading | None = None,
    html: Page = None,
    printing: Printing = TEXT,
) -> None:
    """Hide a key and a value in pieces of text, ask for the key, and measure whether the model finds the value.

    Each piece is read with this needle and, as a control, without it. The ESS of each head is measured just before the
    question, with and without the columns of the needle.

    Args:
        model: A bundled name (sa, la, wla, gla), a folder of a model, a GGUF file, or an id of the Hugging Face hub.
        depths: Tokens from the needle to the question, separated by commas.
        context: Tokens before the question.
        future: Tokens from the question on.
        excerpts: Read at most this many pieces of text.
        seed: Seed of the needles.
        texts: What the model reads. Default: all bundled documents as one text.
        loading: How the model is loaded.
        html: File for a page.
        printing: What is printed.

    Raises:
        InputError: If the depths are no numbers.
    """
    from statesize.cli.shared.table import print_finding
    from statesize.lab.retrieval.needles import needles as run
    from statesize.models.load import load_model
    from statesize.report import check_report_path
    from statesize.texts.documents import vocabulary_size

    texts, loading = texts or Texts(), loading or Loading()
    chosen = whole_numbers("depths", depths)
    if html is not None:
        check_report_path(html)
    texts.check()
    printing.hush_libraries()
    loaded = load_model(model, **asdict(loading), needs_tokenizer=texts.ids is None)
    enough = replace(texts, max_tokens=max(texts.max_tokens, excerpts * (context + future)))
    ids = enough.read(loaded.tokenizer, printing, vocabulary_size(loaded.model)).ids if texts.any_chosen else None
    with printing.bars() as bars:
        report_progress = bars.begin(f"asking {loaded.name} for needles", len(set(chosen))).update
        retrieved = run(
            loaded.model, ids, depths=chosen, context=context, future=future, excerpts=excerpts, seed=seed,
            tokenizer=loaded.tokenizer, name=loaded.name, on_progress=report_progress,
        )  # fmt: skip
    print_finding(retrieved, *_table(retrieved), 3, html, printing)


def _table(retrieved: Needles) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, the heads of each depth that see most of the needle, and notes."""
    from statesize.measurement.statistics import signed

    rows = [
        [str(depth), head.layer, str(head.unit), f"{head.entropy:.1f}", f"{head.share:.1%}", signed(head.lift, "+.3f")]
        for depth in retrieved.depths
        for head in retrieved.heads(depth)[:_SHOWN]
    ]
    notes = [
        "ESS at the cut before the question; share of the needle in the question’s row of T, and how much more that is "
        f"than the share of plain text there. Of each depth the {_SHOWN} heads with most of it; intervals of "
        f"95 % are over {retrieved.excerpts} texts.",
    ]
    return ["depth", "layer", "head", "ESS", "share", "beyond plain text"], rows, notes
