"""`statesize series`: ESS through the checkpoints of a training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from statesize.cli.shared.options import Loading, Measuring, Workers
from statesize.cli.shared.printing import TEXT, Printing
from statesize.cli.shared.texts import Texts

if TYPE_CHECKING:
    from statesize.lab.trends.result import Series


def series(
    *checkpoints: str,
    revisions: str | None = None,
    log: Path | None = None,
    texts: Texts | None = None,
    measuring: Measuring | None = None,
    loading: Loading | None = None,
    workers: Workers | None = None,
    output: Path | None = None,
    html: Path | None = None,
    printing: Printing = TEXT,
) -> None:
    """Measure how the memory use of each layer develops through the checkpoints of a training.

    All checkpoints read the same texts and are measured at the same positions and heads. With --output, what is
    finished is kept while it runs: the same command goes on after a crash or an interrupt.

    Args:
        checkpoints: The folder of a training with checkpoints in it (`statesize train --keep-every`, a Trainer's output
            folder), folders of models, a pattern in quotes such as "run/checkpoint-*", or an id of the hub with
            --revisions.
        revisions: Branches, tags or commits of a model of the hub, with commas between them.
        log: Log with loss and accuracy by step: JSON lines, or a trainer_state.json. Default: what lies beside the
            checkpoints.
        texts: What the models read.
        measuring: What is measured.
        loading: How the models are loaded.
        workers: Who measures; each process measures one checkpoint after another.
        output: Folder for finished checkpoints.
        html: File for a page.
        printing: What is printed.
    """
    from statesize.cli.shared.table import print_finding
    from statesize.lab.trends.checkpoints import find_checkpoints
    from statesize.lab.trends.series import first_tokenizer, series, trend_bar
    from statesize.report import check_report_path

    texts, measuring, workers = texts or Texts(), measuring or Measuring(), workers or Workers()
    options = {name: value for name, value in asdict(loading or Loading()).items() if name != "revision"}
    if html is not None:
        check_report_path(html)
    texts.check()
    workers.check()
    printing.hush_libraries()
    chosen = tuple(part.strip() for part in (revisions or "").split(",") if part.strip())
    known = find_checkpoints(checkpoints, chosen)
    tokenizer = None if texts.ids is not None else first_tokenizer(known, options)
    read = texts.read(tokenizer, printing, None)
    with workers.crew() as crew, printing.bars() as bars:
        report_progress = trend_bar(bars, "measuring checkpoints", len(known))
        measured = series(
            checkpoints, read.ids, revisions=chosen, tokenizer=tokenizer, log=log, output=output, loading=options,
            crew=crew, on_progress=report_progress, **asdict(measuring),
        )  # fmt: skip
    print_finding(measured, *_table(measured), 1, html, printing)


def _table(measured: Series) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, a row a layer, and notes."""
    from statesize.lab.trends.trend import AVERAGE
    from statesize.measurement.statistics import signed

    rows: list[list[str]] = []
    for layer in (AVERAGE, *measured.layers):
        means, largest = measured.means(layer), measured.largest_change(layer)
        between = f"{measured.names[largest.before]} → {measured.names[largest.after]}"
        levels = [f"{means[0]:.1f}", f"{means[-1]:.1f}", signed(measured.change(layer).difference)]
        rows.append([layer, *levels, signed(largest.difference), between])
    headings = [
        "layer",
        f"ESS at\n{measured.names[0]}",
        f"ESS at\n{measured.names[-1]}",
        "difference",
        "largest\nchange",
        "",
    ]
    return headings, rows, [*measured.notes, "Intervals of 95 % are over the documents (Student’s t)."]
