"""What tasks have in common in which symbols are told again that were drawn at random."""

from __future__ import annotations

from statesize.tasks.chance import most_frequent_share
from statesize.tasks.synthetic import SyntheticTask


class SymbolTask(SyntheticTask):
    """A task whose targets are symbols, drawn independently and uniformly; its dataclasses say where they stand."""

    tokens: int  # symbols of a sequence that are to be told, at least 2
    symbols: int  # different symbols, at least 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_at_least("tokens", 2)
        self._require_at_least("symbols", 2)

    @property
    def items(self) -> int:
        """The number of symbols to be told."""
        return self.tokens

    @property
    def chance(self) -> float:
        """Expected share of the most frequent symbol among those of a sequence."""
        return most_frequent_share(self.tokens, self.symbols)
