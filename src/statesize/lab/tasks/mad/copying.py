"""Selective copying of mad-lab."""

from __future__ import annotations

from dataclasses import dataclass

from statesize.check import require_count
from statesize.errors import InputError
from statesize.lab.tasks.mad.task import Draws, MADTask, Sequence
from statesize.lab.tasks.task import IGNORED


@dataclass(frozen=True)
class MADSelectiveCopying(MADTask):
    """Selective copying: symbols with blanks before them, a marker, then as many blanks as symbols, to repeat them in.

    Ids 0 … V − 3 are symbols, V − 2 is the blank and V − 1 the marker. Each blank stands before a symbol that is drawn
    for it uniformly, so that the last symbol is always right before the marker.

    Attributes:
        vocabulary_size: number of token ids, V, `vocab_size` in mad-lab.
        length: tokens of a sequence, more than 2 tokens + 1; `seq_len` there.
        tokens: symbols to be copied, `num_tokens_to_copy` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range, or the tokens do not fit in the length.

    Examples:
        >>> task = MADSelectiveCopying(8, 10, 3, training_sequences=1, held_out_sequences=1)
        >>> inputs, targets = next(task.held_out(1))
        >>> inputs.tolist(), targets[:, -3:].tolist()
        ([[6, 1, 6, 6, 1, 4, 7, 6, 6, 6]], [[1, 1, 4]])
    """

    vocabulary_size: int = 16
    length: int = 256
    tokens: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("vocabulary_size", self.vocabulary_size, 4)
        require_count("tokens", self.tokens, 2)
        if self.length <= 2 * self.tokens + 1:
            raise InputError(
                f"length must be more than {2 * self.tokens + 1}, two for each token and a marker, got {self.length}. "
                "Give a longer one, or fewer tokens."
            )

    @property
    def items(self) -> int:
        """The number of symbols to be copied."""
        return self.tokens

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        del training
        blank, blanks = self.vocabulary_size - 2, self.length - 2 * self.tokens - 1
        symbols = draws.numbers(blank, self.tokens)
        before = draws.legacy.randint(0, self.tokens, blanks).tolist()
        tokens = list[int]()
        for index, symbol in enumerate(symbols):
            tokens += [*[blank] * before.count(index), symbol]
        tokens += [blank + 1, *[blank] * self.tokens]
        return tokens, [*[IGNORED] * (self.length - self.tokens), *symbols]
