"""The length of the pieces in which a command reads texts: as asked, or as the texts allow."""

from __future__ import annotations

from collections.abc import Sequence

from statesize.io.progress import say


def fitting_tokens(most: Sequence[int], asked: int, least: int) -> int:
    """The tokens of a piece, given how many each text allows: as asked, or such that half of the texts are read."""
    if max(most) >= asked:
        return asked
    size = max(least, sorted(most)[(len(most) - 1) // 2])
    say(f"Pieces are of {size:,} tokens, not {asked:,}: the texts are too short.")
    return size
