"""Readings of a stream on stdout: a table that is redrawn in a terminal, lines elsewhere."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from statesize.cli.output.table import share_bar, signs_of
from statesize.printable import printable

if TYPE_CHECKING:
    from statesize.profiling.watching import LayerReading, Reading
    from statesize.texts.tokens import AnyTokenizer

HEADINGS = ("position", "token", "layer", "entropy", "count", "ceiling", "norm")
_HISTORY, _TEXT = 32, 60
# Columns that ESS, ceiling, bar, count and norm take, with the gaps.
_NUMBERS = 54
_LEVELS, _PLAIN_LEVELS = "▁▂▃▄▅▆▇█", "_.-=*#"


@contextmanager
def screen(model: str, tokenizer: AnyTokenizer, future: int, *, json: bool = False) -> Generator[Screen | Lines]:
    """What shows readings: documents, a table where stdout is a terminal that can be redrawn, else lines."""
    console = Console(highlight=False)
    if json:
        yield Documents(tokenizer)
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            yield Screen(model, tokenizer, future, console, live)
    else:
        print("\t".join(HEADINGS))
        yield Lines(tokenizer)


class Lines:
    """One line for each reading and layer, parted by tabs."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self._tokenizer = tokenizer

    def flush(self) -> None:
        """Let those who read the output see it."""
        sys.stdout.flush()

    def show(self, reading: Reading, tokens: int) -> None:
        """Print a reading."""
        token = _quoted(_printable(self._tokenizer, reading.token))
        for layer in reading.layers:
            figures = (f"{layer.entropy:.4g}", f"{layer.count:.4g}", str(layer.ceiling), f"{layer.norm:.4g}")
            print("\t".join((str(reading.position), token, printable(layer.name), *figures)))


class Documents(Lines):
    """One JSON document a line for each reading."""

    def show(self, reading: Reading, tokens: int) -> None:
        """Print a reading."""
        from statesize.cli.output.document import SCHEMA, known, print_json
        from statesize.texts.tokens import token_text

        token = token_text(self._tokenizer, reading.token)
        layers = [{name: known(value) for name, value in asdict(layer).items()} for layer in reading.layers]
        print_json({"schema": SCHEMA, "position": reading.position, "token": token, "layers": layers})


class Screen:
    """A table with one row a layer."""

    def __init__(self, model: str, tokenizer: AnyTokenizer, future: int, console: Console, live: Live) -> None:
        model = printable(model)
        self._model, self._tokenizer, self._future, self._console, self._live = model, tokenizer, future, console, live
        self._signs = signs_of(console)
        self._history: dict[str, deque[float]] = {}
        self._text: deque[str] = deque(maxlen=_TEXT)
        live.update(Text(f"{model} waits for {future + 1} tokens."))

    def show(self, reading: Reading, tokens: int) -> None:
        """Draw a reading."""
        token = _printable(self._tokenizer, reading.token)
        self._text += token
        for layer in reading.layers:
            share = layer.entropy / layer.ceiling if layer.ceiling else math.nan
            self._history.setdefault(layer.name, deque(maxlen=_HISTORY)).append(share)
        self._live.update(self._table(reading, token, tokens))

    def flush(self) -> None:
        """Draw what is there now."""
        self._live.refresh()

    def _table(self, reading: Reading, token: str, tokens: int) -> Table:
        caption = Text.assemble("…", "".join(self._text))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption=caption)
        table.caption_justify = "left"
        table.title_justify = "left"
        title = f"{self._model}: {tokens} tokens read; the past before token {reading.position}, {_quoted(token)},"
        table.title = Text(f"{title} for the next {self._future}")
        # The numbers and the layer's name keep their room; the curve takes what is left.
        names = max(len(layer.name) for layer in reading.layers)
        curve = max(0, min(_HISTORY, self._console.size.width - names - _NUMBERS))
        for heading in ("layer", "ESS", "of", "", "σ > 1 %", "norm", f"the last {curve}"[:curve]):
            justify = "right" if heading in {"ESS", "of", "σ > 1 %", "norm"} else "left"
            table.add_column(heading.translate(self._signs), justify=justify, no_wrap=True)
        # Title, heading, caption, and the line where the cursor waits.
        room = max(1, self._console.size.height - 5)
        shown = reading.layers if len(reading.layers) <= room else reading.layers[: room - 1]
        for layer in shown:
            table.add_row(*self._cells(layer, curve))
        if len(shown) < len(reading.layers):
            table.add_row(Text(f"and {len(reading.layers) - len(shown)} more, for which this terminal is too low"))
        return table

    def _cells(self, layer: LayerReading, curve: int) -> tuple[Text, ...]:
        shares = self._history[layer.name]
        levels = _PLAIN_LEVELS if self._signs else _LEVELS
        marks = [0 if math.isnan(share) else int(min(max(share, 0.0), 0.999) * len(levels)) for share in shares]
        figures = (f"{layer.entropy:.1f}", str(layer.ceiling), f"{layer.count:.1f}", f"{layer.norm:.3g}")
        ess, ceiling, count, norm = map(Text, figures)
        bar = share_bar(shares[-1], self._signs)
        drawn = "".join(levels[mark] for mark in marks[len(marks) - min(curve, len(marks)) :])
        return Text(printable(layer.name)), ess, ceiling, bar, count, norm, Text(drawn)


def _printable(tokenizer: AnyTokenizer, token: int) -> str:
    from statesize.texts.tokens import token_text

    return printable(token_text(tokenizer, token))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
