"""Tables of pandas that show all their columns, one part below the other where a terminal is narrow."""

from __future__ import annotations

import html
import shutil
import textwrap
from typing import Any, cast

import pandas as pd

from statesize.io.text import printable
from statesize.measurement.statistics import evenly_spread
from statesize.report.document import cell_text
from statesize.report.names import by_reason

_OVER_CUTS = ("state_utilisation", "ceiling_utilisation", "norm")
_MOST_ROWS, _PAGE_WIDTH = 32, 120
_NO_SINKS = "sinkless_entropy is middle_entropy: no layer has an attention sink."
_NO_GROUPS = (
    "This model has no groups: heads that read one stored input, as in grouped-query attention. Each of its heads "
    "stores its own."
)


class LayerFrame(pd.DataFrame):
    """A row per layer: printed with all rows, and with the columns that are not empty, many of them in parts.

    What pandas makes of it, such as a selection of columns, is a plain data frame.
    """

    def _shown(self) -> tuple[pd.DataFrame, list[str]] | None:
        """The cells of the columns that say something, and what stands below them; None of what has no layers."""
        if self.empty or not {"model", "layer"} <= set(self.columns):
            return None
        values: dict[str, list[Any]] = cast("Any", self).to_dict("list")
        causes = by_reason(dict(zip(values["layer"], values.pop("cause", []), strict=False)))
        if len(set(values["model"])) == 1:
            del values["model"]
        middles = [values.get(name) for name in ("sinkless_entropy", "middle_entropy")]
        repeated = None not in middles and cast("Any", self["sinkless_entropy"]).equals(self["middle_entropy"])
        if repeated:
            del values["sinkless_entropy"]
        texts = {name: [cell_text(value) for value in column] for name, column in values.items()}
        empty = [name for name, cells in texts.items() if not any(cell.strip("–") for cell in cells)]
        shown = [name for name in texts if name not in empty]
        at_middle = [name for name in shown if name in ("middle_entropy", "sinkless_entropy")]
        over_cuts = [name for name in shown if name.startswith("average_") or name in _OVER_CUTS]
        both = f"At the middle of the text: {', '.join(at_middle)}. Means over cuts: {', '.join(over_cuts)}."
        below = [
            *([both] if at_middle and over_cuts else []),
            *([_NO_SINKS] if repeated else []),
            *(f"{layers}: {cause}" for layers, cause in causes.items() if cause),
            *([f"Empty: {', '.join(empty)}."] if empty else []),
        ]
        return pd.DataFrame({name: texts[name] for name in shown}), below

    def _repr_html_(self) -> str:
        if (found := self._shown()) is None:
            return cast("Any", pd.DataFrame(self))._repr_html_()
        cells, below = found
        return cells.to_html(index=False) + "".join(f"<p>{html.escape(line)}</p>" for line in below)

    def __repr__(self) -> str:
        """The table within the width of the terminal, each part of it with the names of the layers.

        Returns:
            Lines of text.
        """
        if (found := self._shown()) is None:
            return super().__repr__()
        cells, below = found
        width = shutil.get_terminal_size().columns
        table = cast("Any", cells.set_index("layer").rename_axis(None)).to_string(line_width=width)
        return "\n".join([table, *(textwrap.fill(line, width) for line in below)])


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
    """A row per number: printed with all columns, where pandas takes the first and the last."""

    @property
    def _constructor(self) -> type[NumberFrame]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return NumberFrame

    def __repr__(self) -> str:
        """The table within the width of the terminal, in parts.

        Returns:
            Lines of text.
        """
        with pd.option_context("display.max_columns", None, "display.width", shutil.get_terminal_size().columns):
            return super().__repr__()


class PositionFrame(pd.DataFrame):
    """A row per head or layer and a column per position: shown with positions from all parts of the text, as fit."""

    def _spread(self, width: int) -> tuple[pd.DataFrame, str, list[str]]:
        """As many of the rows and positions as fit, their lines, and which part of the table they are."""
        some = cast("Any", self).iloc[evenly_spread(len(self), _MOST_ROWS)]
        most = min(len(self.columns), width // 3)
        while True:
            shown = some.iloc[:, evenly_spread(len(self.columns), most)]
            text = shown.map(cell_text).rename(columns=_shortened).to_string()
            room = max(map(len, text.splitlines()))
            if room <= width or most <= 2:
                break
            most = max(2, min(most - 1, most * width // room))
        rows = f"{len(shown)} of {len(self)} rows and " if len(shown) < len(self) else ""
        told = f"Shown: {rows}{shown.shape[1]} of {self.shape[1]} positions, evenly spread."
        return shown, text, [] if shown.shape == self.shape else [told]

    def __repr__(self) -> str:
        """Positions from all parts of the text.

        Returns:
            Lines of text; the last says how much of the table they are.
        """
        _, text, note = self._spread(shutil.get_terminal_size().columns)
        return "\n".join([*(line.rstrip() for line in text.splitlines()), *note])

    def _repr_html_(self) -> str:
        shown, _, note = self._spread(_PAGE_WIDTH)
        return pd.DataFrame(shown).to_html(float_format="{:.1f}".format) + "".join(f"<p>{line}</p>" for line in note)


def _shortened(part: object) -> str:
    return printable(str(part))[:10]
