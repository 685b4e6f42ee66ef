"""Readings of a stream on stdout: a table that is redrawn in a terminal, lines elsewhere."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from statesize.cli.shared.options import Count, Flag, Loading, OpenPage, Page, check_page
from statesize.cli.shared.printing import TEXT, Printing
from statesize.cli.shared.table import share_bar, signs_of
from statesize.io.progress import say
from statesize.io.text import printable

if TYPE_CHECKING:
    from torch import nn

    from statesize.profiling.watching import LayerReading, Reading, TextStream
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
        from statesize.cli.shared.printing import SCHEMA, known, print_json
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


# Bytes that are read at once, where so many are there.
_PIECE = 4096


def watch(
    model: str,
    /,
    *,
    loading: Loading | None = None,
    future: Count = 16,
    channels: Count = 8,
    context: Count = 512,
    generate: Count | None = None,
    special_tokens: Flag = False,
    html: Page = None,
    open_page: OpenPage = False,
    printing: Printing = TEXT,
) -> None:
    """Read text from standard input as it comes, and draw each layer's ESS against its ceiling.

    The past is all that was read, the future the next --future tokens, so each token is measured that many tokens
    later. Blank lines separate documents. In a terminal the command draws a table. Elsewhere it prints a line for each
    token and layer, with tabs between position, token, layer, entropy-ESS, number of singular values above 1 % of the
    largest, ceiling and norm; with --json, a JSON document for each token.

    Args:
        model: A bundled name (sa, la, wla, gla), a folder of a model, a GGUF file, or an id of the Hugging Face hub.
        loading: How the model is loaded.
        future: Tokens after each cut that count as its future.
        channels: Heads or channels that are measured of each layer, at most.
        context: Most tokens that the model reads at once; beyond them it forgets the older half.
        generate: When the text ends, generate this many tokens, always the likeliest, and read them too.
        special_tokens: Read special tokens that the text spells, such as <|im_end|>, as tokens and not as letters.
            Blank lines are then text and do not separate documents.
        html: HTML file for a page of all that was read, written at the end of the text or at an interrupt.
        open_page: Show the page in a browser.
        printing: What is printed.

    Raises:
        InputError: Too few tokens for a single reading, or a page is to be opened that is not written.
    """
    from statesize.cli.shared.printing import tell_page
    from statesize.errors import InputError
    from statesize.models.load import load_model
    from statesize.profiling.watch_page import write_page
    from statesize.profiling.watching import TextStream, Watch

    check_page(html, open_page=open_page)
    printing.hush_libraries()
    loaded = load_model(model, **asdict(loading or Loading()))
    tokenizer = cast("AnyTokenizer", loaded.tokenizer)
    reader = Watch(loaded.model, future, channels, context)
    stream = TextStream(tokenizer, special_tokens)
    tokens = readings = 0
    read: list[int] = []
    kept: list[Reading] = []
    told: set[str] = set()
    try:
        with screen(loaded.name, tokenizer, future, json=printing.json) as shown:
            for ids in _continued(_tokens(stream, shown), loaded.model, read, generate or 0, printing):
                tokens += len(ids)
                for reading in reader.read(ids):
                    readings += 1
                    shown.show(reading, tokens)
                    if html is not None:
                        kept.append(reading)
                for name in [name for name in reader.skipped if name not in told]:
                    say(f"skipped: {name}: {reader.skipped[name]}")
                    told.add(name)
    finally:
        # A stream without an end is left by an interrupt.
        if html is not None and kept:
            write_page(loaded.name, kept, tokenizer, future, html, reader.skipped)
            tell_page(html, printing, open_page=open_page)
    if not readings:
        raise InputError(
            f"standard input held {tokens} tokens; the first is measured once there are {future + 1}, or fewer with "
            "--future."
        )


def _continued(
    pieces: Iterator[list[int]], model: nn.Module, read: list[int], count: int, printing: Printing
) -> Iterator[list[int]]:
    """The tokens of a text, which are added to `read`, then `count` that the model goes on with."""
    from statesize.profiling.watching import disagreements, generate

    for ids in pieces:
        read += ids
        yield ids
    if count:
        generated = generate(model, read, count)
        apart = disagreements(model, read, generated)
        if apart:
            printing.say(f"{apart} of {len(generated)} tokens are not what the model says without its cache.")
        yield generated


def _tokens(stream: TextStream, shown: Screen | Lines) -> Iterator[list[int]]:
    """Tokens as they come; each piece is flushed before the next is waited for."""
    for text in _pieces():
        yield stream.feed(text)
        shown.flush()
    yield stream.end()


def _pieces() -> Iterator[str]:
    from statesize.errors import FileError

    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    before = 0
    while True:
        piece = os.read(sys.stdin.fileno(), _PIECE)
        try:
            text = lines.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise FileError(
                f"standard input is not UTF-8: {error.reason}, in the {_PIECE} bytes after byte {before}; convert it "
                "first."
            ) from error
        before += len(piece)
        if text:
            yield text
        if not piece:
            return
