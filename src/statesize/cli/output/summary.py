"""The table of profiles on stdout."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from statesize.profiling import Plan, Profile

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
    out = Console(highlight=False, markup=False, soft_wrap=True, width=max(width, 80), height=100)
    for profile in profiles:
        name = f"{profile.model}: " if len(profiles) > 1 else ""
        for part, reason in profile.attributes["skipped"].items():
            out.print(f"{name}skipped: {part}: {reason}")
        for mixer, note in profile.notes.items():
            out.print(f"{name}{mixer}: {note}")
    differences = [row["run_difference"] for profile in profiles for row in profile.summary_rows()]
    if not all(map(math.isnan, differences)):
        largest = np.nanmax(differences)
        figure = f"{largest:.0e}" if largest else "0"
        out.print(f"Last hidden state, observed against unaltered: largest difference {figure}.")


def print_plan(plan: Plan) -> None:
    """Print what a profile would measure and cost, one row a mixer, on stdout.

    Args:
        plan: The plan.
    """
    console = Console(highlight=False, soft_wrap=True, width=1000, height=100)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("units", "measured", "at once", "positions", "engine", "memory", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mixer in plan.mixers:
        numbers = (mixer.units, mixer.measured, mixer.block, mixer.positions)
        cells = (mixer.name, mixer.kind, *(f"{number:,}" for number in numbers), mixer.engine)
        table.add_row(*map(Text, (*cells, byte_count(mixer.memory), f"{mixer.seconds:,.1f}")))
    width = Measurement.get(console, console.options, table).maximum
    out = Console(highlight=False, markup=False, soft_wrap=True, width=max(width, 80), height=100)
    out.print(table, crop=False, overflow="ignore")
    for part, reason in plan.skipped.items():
        out.print(f"skipped: {part}: {reason}")
    memory = "" if plan.memory is None else f", {byte_count(plan.memory)} of memory with the model"
    out.print(
        f"{plan.spectra:,} spectra of {len(plan.mixers)} mixers over {plan.sequences:,} sequences, {plan.tokens:,} "
        f"tokens: about {plan.seconds:,.0f} s{memory}."
    )
    if plan.memory is not None:
        held = byte_count(plan.memory - 2 * plan.results)
        out.print(f"With --output, {byte_count(plan.results)} of results lie on disk and {held} in memory.")
    if plan.sampled < plan.sequences:
        out.print(f"Predicted from {plan.sampled} sequences of all parts of the corpus; the others were not read.")
    most = max((mixer.operations for mixer in plan.mixers), default=0.0)
    out.print(
        f"Without --channels, all heads or channels of a mixer are measured while they cost at most "
        f"{plan.most_operations:.0e} operations a sequence; the largest here costs {most:.0e}."
    )


def _table(profiles: Sequence[Profile], console: Console, *, bars: bool) -> Table:
    rho = profiles[0].attributes["relative_tolerances"]
    sigma, largest, sign = ("s", "s_1", "+-") if console.options.ascii_only else ("σ", "σ₁", "±")
    relative = f"{sigma} > {rho[0]:g} {largest}" if rho else "rel. tolerance"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("model", "layer"):
        table.add_column(heading, no_wrap=True)
    rows = [row for profile in profiles for row in profile.summary_rows()]
    # Columns that say nothing of these profiles are left out.
    sampled = any(row["measured"] < row["units"] for row in rows)
    checked = any(math.isfinite(row["faithfulness"]) for row in rows)
    for heading in (
        "TSS",
        "state\nbytes",
        *(["measured"] if sampled else []),
        "average ESS\n(entropy)",
        f"average ESS\n({relative})",
        "total ESS\n(entropy)",
        f"total ESS\n({relative})",
        "norm",
        "utilisation\n(entropy)",
        *(["difference\nto model"] if checked else []),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    for index, profile in enumerate(profiles):
        for position, row in enumerate(profile.summary_rows()):
            if index and not position:
                table.add_row()
            cells = [Text(str(row["model"]), style="bold"), Text(str(row["layer"])), Text(f"{row['tss']}")]
            cells.append(Text(byte_count(row["state_bytes"])))
            if sampled:
                cells.append(Text(f"{row['measured']} of {row['units']}"))
            for name, form in (("average", ".1f"), ("total", ",.0f")):
                for metric in ("entropy", "relative_tolerance"):
                    figures = cast("dict[str, float]", row)
                    value, error = figures[f"{name}_{metric}"], figures[f"{name}_{metric}_error"]
                    cells.append(Text(_estimate(value, error, form, sign)))
            cells += [Text(_norm(row["norm"])), Text(_figure(row["utilisation"], ".0%"))]
            if checked:
                cells.append(Text(_figure(row["faithfulness"], ".0e")))
            if bars:
                cells.append(_bar(row["utilisation"], console))
            table.add_row(*cells)
    return table


def byte_count(count: float) -> str:
    """A number of bytes for people.

    Args:
        count: Bytes.

    Returns:
        Such as "512 B", "1.5 kB" or "2.0 GB".

    Example:
        >>> byte_count(1536)
        '1.5 kB'
    """
    for name in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if name == "B" else f"{count:.1f} {name}"
        count /= 1000
    return f"{count:.1f} TB"


def _estimate(value: float, error: float, form: str, sign: str) -> str:
    if error == 0 or not math.isfinite(value):
        return _figure(value, form)
    return f"{_figure(value, form)} {sign} {_figure(error, form)}"


def _figure(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _norm(value: float) -> str:
    return _figure(value, ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f")


def _bar(share: float, console: Console) -> Text:
    filled = round(min(max(share, 0.0), 1.0) * BAR) if math.isfinite(share) else 0
    full, empty = ("#", ".") if console.options.ascii_only else ("█", "░")
    return Text(full * filled, style="blue").append(empty * (BAR - filled), style="dim")
