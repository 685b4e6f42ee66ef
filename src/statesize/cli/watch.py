"""`statesize watch`: ESS while text comes."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from statesize.cli.options.kinds import Count, Flag
from statesize.cli.options.loading import Loading
from statesize.cli.output.printing import TEXT, Printing

if TYPE_CHECKING:
    from torch import nn

    from statesize.cli.output.watch_screen import Lines, Screen
    from statesize.texts.stream import TextStream
    from statesize.texts.tokens import AnyTokenizer

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
    printing: Printing = TEXT,
) -> None:
    """Read text from standard input as it comes, and draw each layer's ESS against its ceiling.

    What is read is the past, and the next tokens are the future, so each token is measured when those after it are
    there. Blank lines part documents. In a terminal a table is drawn; elsewhere each token and layer is one line of
    position, token, layer, entropy-ESS, number of singular values above 1 % of the largest, ceiling and norm, parted by
    tabs. With --json each token is one line, a JSON document.

    Args:
        model: A bundled name (sa, la, wla, gla), a folder of a model, or an id of the Hugging Face hub.
        loading: How the model is loaded.
        future: Tokens after the cut that are its future.
        channels: Heads or channels that are measured of each layer, at most.
        context: Most tokens that the model reads at once; when they are read, it forgets the older half.
        generate: When the text ends, go on with so many tokens, always the likeliest, and read those too.
        special_tokens: Read special tokens that the text spells, such as <|im_end|>, as tokens and not as letters;
            blank lines are then text, and part no documents.
        printing: What is printed.

    Raises:
        InputError: If there were too few tokens for a single reading.
    """
    from statesize.cli.output.watch_screen import screen
    from statesize.errors import InputError
    from statesize.loading.models import load_model
    from statesize.profiling.watching import Watch
    from statesize.texts.stream import TextStream

    printing.hush_libraries()
    loaded = load_model(model, **asdict(loading or Loading()))
    tokenizer = cast("AnyTokenizer", loaded.tokenizer)
    reader = Watch(loaded.model, future, channels, context)
    stream = TextStream(tokenizer, special_tokens)
    tokens = readings = 0
    read: list[int] = []
    with screen(loaded.name, tokenizer, future, json=printing.json) as shown:
        for ids in _continued(_tokens(stream, shown), loaded.model, read, generate or 0, printing):
            tokens += len(ids)
            for reading in reader.read(ids):
                readings += 1
                shown.show(reading, tokens)
    if not readings:
        raise InputError(
            f"standard input held {tokens} tokens; the first is measured once there are {future + 1}, or fewer with "
            "--future."
        )


def _continued(
    pieces: Iterator[list[int]], model: nn.Module, read: list[int], count: int, printing: Printing
) -> Iterator[list[int]]:
    """The tokens of a text, which are added to `read`, then `count` that the model goes on with."""
    from statesize.profiling.generating import disagreements, generate

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
