"""The table of profiles on stdout."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from statesize.profiling import Profile

BAR = 16


def print_summary(profiles: Sequence[Profile]) -> None:
    """Print one row a mixer on stdout, as wide as it needs: nothing is cut or wrapped, whatever the terminal's width.

    Args:
        profiles: What it shows, in this order.
    """
    console = Console(highlight=False, soft_wrap=True, width=1000, height=100)
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    table = _table(profiles, console, bars=True)
    if terminal is not None and Measurement.get(console, console.options, table).maximum > terminal:
        table = _table(profiles, console, bars=False)
    width = Measurement.get(console, console.options, table).maximum
    # With a height too, because rich takes the width of a dumb terminal for 80 whatever it is told.
    Console(highlight=False, width=width, height=100).print(table, crop=False, overflow="ignore")


def _table(profiles: Sequence[Profile], console: Console, *, bars: bool) -> Table:
    rho = profiles[0].attributes["relative_tolerances"]
    sigma, largest = ("s", "s_1") if console.options.ascii_only else ("σ", "σ₁")
    relative = f"{sigma} > {rho[0]:g} {largest}" if rho else "rel. tolerance"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("model", "layer"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "TSS",
        "average ESS\n(entropy)",
        f"average ESS\n({relative})",
        "total ESS\n(entropy)",
        f"total ESS\n({relative})",
        "norm",
        "utilisation\n(entropy)",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    for index, profile in enumerate(profiles):
        for position, row in enumerate(profile.summary_rows()):
            if index and not position:
                table.add_row()
            cells = [Text(str(row["model"]), style="bold"), Text(str(row["layer"])), Text(f"{row['tss']}")]
            cells += [Text(_figure(row[name], ".1f")) for name in ("average_entropy", "average_relative_tolerance")]
            cells += [Text(_figure(row[name], ",.0f")) for name in ("total_entropy", "total_relative_tolerance")]
            cells += [Text(_norm(row["norm"])), Text(_figure(row["utilisation"], ".0%"))]
            if bars:
                cells.append(_bar(row["utilisation"], console))
            table.add_row(*cells)
    return table


def _figure(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _norm(value: float) -> str:
    return _figure(value, ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f")


def _bar(share: float, console: Console) -> Text:
    filled = round(min(max(share, 0.0), 1.0) * BAR) if math.isfinite(share) else 0
    full, empty = ("#", ".") if console.options.ascii_only else ("█", "░")
    return Text(full * filled, style="blue").append(empty * (BAR - filled), style="dim")
