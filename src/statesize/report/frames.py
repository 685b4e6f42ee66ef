"""Tables of pandas that print what a terminal has room for, and name the rest, in place of pandas' dots."""

from __future__ import annotations

import html
import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from statesize.io.text import printable
from statesize.measurement.chart import evenly_spread
from statesize.report.names import by_reason

_OVER_CUTS = ("state_utilisation", "ceiling_utilisation", "norm")
_MOST_ROWS, _FEW = 32, 12
_GAP = 2
_NO_SINKS = "sinkless_entropy is middle_entropy: no layer has an attention sink."
_NO_GROUPS = (
    "This model has no groups: heads that read one stored input, as in grouped-query attention. Each of its heads "
    "stores its own."
)


def cell_text(value: Any) -> str:
    """A number with three digits, or all of its whole ones; a dash where it is not known."""
    if not isinstance(value, Real):
        return str(value) if value else "-"
    number = float(value)
    if not math.isfinite(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 100 or number.is_integer() else f"{number:.3g}"


class LayerFrame(pd.DataFrame):
    """A row per layer: printed with all rows, and with the columns that are not empty and fit, many of them in parts.

    What pandas makes of it, such as a selection of columns, is a plain data frame.
    """

    def _repeated(self) -> list[str]:
        """The column of ESS without sinks, where no layer has any."""
        name = "sinkless_entropy"
        known = {name, "middle_entropy"} <= set(self.columns)
        return [name] if known and cast("Any", self[name]).equals(self["middle_entropy"]) else []

    def _texts(self) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
        """The cells of each column that is not empty, the causes of layers without numbers, and the empty columns."""
        values: dict[str, list[Any]] = cast("Any", self).to_dict("list")
        causes = dict(zip(values["layer"], values.pop("cause", []), strict=False))
        if len(set(values["model"])) == 1:
            del values["model"]
        for name in self._repeated():
            del values[name]
        texts = {name: [cell_text(value) for value in column] for name, column in values.items()}
        empty = [name for name, cells in texts.items() if not any(cell.strip("-") for cell in cells)]
        return {name: texts[name] for name in texts if name not in empty}, by_reason(causes), empty

    def _told(self, names: Iterable[str], causes: Mapping[str, str], empty: Sequence[str]) -> list[str]:
        """What stands below a table of some columns."""
        at_middle = [name for name in names if name in ("middle_entropy", "sinkless_entropy")]
        over_cuts = [name for name in names if name.startswith("average_") or name in _OVER_CUTS]
        both = f"At the middle of the text: {', '.join(at_middle)}. Means over cuts: {', '.join(over_cuts)}."
        return [
            *([both] if at_middle and over_cuts else []),
            *([_NO_SINKS] if self._repeated() else []),
            *(f"{layers}: {cause}" for layers, cause in causes.items() if cause),
            *([f"Empty: {', '.join(empty)}."] if empty else []),
        ]

    def _repr_html_(self) -> str:
        if self.empty or not {"model", "layer"} <= set(self.columns):
            return cast("Any", pd.DataFrame(self))._repr_html_()
        cells, causes, empty = self._texts()
        below = "".join(f"<p>{html.escape(line)}</p>" for line in self._told(cells, causes, empty))
        return pd.DataFrame(cells).to_html(index=False) + below

    def __repr__(self) -> str:
        """The table within the width of the terminal, its headings broken at underscores.

        Returns:
            Lines of text; the last name the columns that are left out.
        """
        if self.empty or not {"model", "layer"} <= set(self.columns):
            return super().__repr__()
        cells, causes, empty = self._texts()
        width = shutil.get_terminal_size().columns

        def lines(names: Sequence[str]) -> list[str]:
            columns = [(name.replace("_", "_\n"), cells[name]) for name in names]
            return _lines(columns, sum(name in ("model", "layer", "kind") for name in names))

        rooms = {name: max(map(len, lines([name]))) + _GAP for name in cells}

        def fitting(names: list[str]) -> list[str]:
            while len(names) > 1 and sum(map(rooms.__getitem__, names)) - _GAP > width:
                names = names[:-1]
            return names

        parts = [fitting(list(cells))]
        left_out = [name for name in cells if name not in parts[0]]
        # All columns go on below; of a few, those that are read last are only named.
        while left_out and len(self.columns) > _FEW:
            below = fitting(left_out) if rooms["layer"] > width // 2 else fitting(["layer", *left_out])
            parts.append(below)
            left_out = [name for name in left_out if name not in below]
        kept = parts[0] if len(self.columns) <= _FEW else []
        left = f"No room for {', '.join(left_out)}."
        return "\n".join(
            [
                "\n\n".join("\n".join(lines(part)) for part in parts),
                *(textwrap.fill(line, width) for line in self._told(kept, causes, empty)),
                *([textwrap.fill(left, width)] if left_out else []),
            ]
        )


class GroupFrame(LayerFrame):
    """A row per layer whose heads share what it stores; without one it says so."""

    def __repr__(self) -> str:
        """The table, or that there is none.

        Returns:
            Lines of text.
        """
        return _NO_GROUPS if self.empty else super().__repr__()

    def _repr_html_(self) -> str:
        return f"<p>{_NO_GROUPS}</p>" if self.empty else super()._repr_html_()


class NumberFrame(pd.DataFrame):
    """A row per number: printed with the first columns that fit, where pandas takes the first and the last."""

    @property
    def _constructor(self) -> type[NumberFrame]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return NumberFrame

    def __repr__(self) -> str:
        """The table within the width of the terminal.

        Returns:
            Lines of text; the last names the columns that are left out.
        """
        width, plain = shutil.get_terminal_size().columns, cast("Any", pd.DataFrame(self))
        with pd.option_context("display.expand_frame_repr", False, "display.max_columns", None):
            for most in range(self.shape[1], 0, -1):
                text = repr(plain.iloc[:, :most])
                if most == 1 or max(map(len, text.splitlines())) <= width:
                    break
            else:
                return super().__repr__()
        left_out = ", ".join(map(str, self.columns[most:]))
        return f"{text}\n{textwrap.fill(f'No room for {left_out}.', width)}" if left_out else text


class PositionFrame(pd.DataFrame):
    """A row per head or layer and a column per position: shown with positions from all parts of the text, as fit."""

    def _spread(self, width: int) -> tuple[pd.DataFrame, list[str]]:
        """As many of the rows and positions as fit, and their lines."""
        some = cast("Any", self).iloc[evenly_spread(len(self), _MOST_ROWS)]
        index = "\n".join(str(name) for name in [*self.columns.names, some.index.name or ""])
        most = min(len(self.columns), width // (1 + _GAP) + 1)
        while True:
            shown = some.iloc[:, evenly_spread(len(self.columns), most)]
            names = (cast("tuple[Any, ...]", name if isinstance(name, tuple) else (name,)) for name in shown.columns)
            columns = [
                ("\n".join([*(printable(str(part))[:10] for part in parts), ""]), map(cell_text, shown.iloc[:, place]))
                for place, parts in enumerate(names)
            ]
            lines = _lines([(index, map(str, some.index)), *columns], 1)
            room = max(map(len, lines))
            if room <= width or most <= 2:
                return shown, lines
            most = max(2, min(most - 1, most * width // room))

    def __repr__(self) -> str:
        """Positions from all parts of the text.

        Returns:
            Lines of text; the last says how much of the table they are.
        """
        shown, lines = self._spread(shutil.get_terminal_size().columns)
        return "\n".join([*lines, *_missing(self, shown)])

    def _repr_html_(self) -> str:
        shown, _ = self._spread(120)
        notes = "".join(f"<p>{note}</p>" for note in _missing(self, shown))
        return pd.DataFrame(shown).to_html(float_format="{:.1f}".format) + notes


def _missing(table: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    if shown.shape == table.shape:
        return []
    rows = f"{len(shown)} of {len(table)} rows and " if len(shown) < len(table) else ""
    return [f"Shown: {rows}{shown.shape[1]} of {table.shape[1]} positions, evenly spread."]


def _lines(columns: Sequence[tuple[str, Iterable[str]]], left: int) -> list[str]:
    """Columns of a heading and cells side by side, the first `left` of them flush left, by rich."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place, (heading, _) in enumerate(columns):
        table.add_column(Text(heading), justify="left" if place < left else "right", vertical="bottom", no_wrap=True)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*map(Text, row))
    console = Console(width=10_000, height=100, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
