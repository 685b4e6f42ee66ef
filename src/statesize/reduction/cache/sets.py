"""Three sets of documents: for curves, for the choice of budgets, and held out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from statesize.errors import InputError
from statesize.io.text import counted
from statesize.measurement.settings import FEWEST_PIECES
from statesize.texts.inputs import begun_excerpts
from statesize.texts.rows import evenly
from statesize.texts.tokens import AnyTokenizer

# Parts of the documents, as the sets are named above.
_PARTS = (1 / 3, 1 / 6, 1 / 2)


def three_sets(
    texts: Sequence[Tensor], size: int, most: int, tokenizer: AnyTokenizer | None, *, least: int
) -> tuple[list[Tensor], list[Tensor], list[tuple[int, Tensor]]]:
    """Pieces of texts for curves, for the choice of budgets, and held out, with their text; neighbours in one set."""
    # least: The smallest size that may be advised.
    sets: tuple[list[tuple[int, Tensor]], ...] = ([], [], [])
    longest, different = max(map(len, texts)), dict[bytes, tuple[int, Tensor]]()
    for number, text in enumerate(texts):
        # A text that is given several times would lie in several sets.
        different.setdefault(text.cpu().numpy().tobytes(), (number, text))
    for number, text in different.values():
        found = begun_excerpts([text], size, len(text), tokenizer) if len(text) >= size else []
        pieces = [(number, piece) for piece in found]
        if len(pieces) >= FEWEST_PIECES:
            one, two = round(_PARTS[0] * len(pieces)), round((_PARTS[0] + _PARTS[1]) * len(pieces))
            for part, some in zip(sets, (pieces[:one], pieces[one:two], pieces[two:]), strict=True):
                part += some
        elif pieces:
            # A short text is not parted: it goes where most is missing.
            min(zip(sets, _PARTS, strict=True), key=lambda entry: len(entry[0]) / entry[1])[0].extend(pieces)
    if not all(sets):
        fits = max(longest // FEWEST_PIECES, least)
        takes = "" if longest >= FEWEST_PIECES * fits else f", which takes one text of {FEWEST_PIECES * fits}"
        fewer = f", or --max-tokens {fits} (tokens={fits}){takes}" if fits < size else ""
        kind = "text" if len(different) == len(texts) else "different text"
        given = counted(sum(len(text) >= size for _, text in different.values()), kind)
        raise InputError(
            f"inputs must have one text of {FEWEST_PIECES * size} tokens, which is cut into {FEWEST_PIECES} pieces, or "
            f"{len(sets)} texts of {size}, for curves, budgets and prices, "
            f"got {given} of {size} or more, the longest of {longest}. Give more text{fewer}."
        )
    curves, choice, held_out = (
        evenly(part, max(1, round(share * most))) for part, share in zip(sets, _PARTS, strict=True)
    )
    return [piece for _, piece in curves], [piece for _, piece in choice], held_out
