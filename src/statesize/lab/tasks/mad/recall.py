"""In-context recall and noisy in-context recall of mad-lab."""

from __future__ import annotations

from dataclasses import dataclass

from statesize.errors import InputError
from statesize.lab.tasks.mad.task import Draws, NoisyTask, Sequence
from statesize.lab.tasks.task import IGNORED


@dataclass(frozen=True)
class MADRecall(NoisyTask):
    """In-context recall: pairs of a key and its value; a key that comes again has the same value again.

    Ids of the first half of what is neither noise nor special are keys, those of the second half values. Each of the
    length / 2 − 1 pairs is a key drawn with replacement and its value, or two tokens of noise; the last pair has a key
    that was there before. With `multi_query`, the value of each key that was there before is queried; else only that of
    the last pair, which then follows a special token, the last id. When training, every next token is a target.

    Attributes:
        vocabulary_size: number of token ids, `vocab_size` in mad-lab.
        length: even; `seq_len` there. A sequence has one token less with `multi_query`, as there.
        multi_query: whether all keys that come again are queried.
        noise_share: share of pairs that are noise, `frac_noise` there; noisy in-context recall has 0.2.
        noise_vocabulary: ids of noise, `noise_vocab_size` there; noisy in-context recall has 16 of 32.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range, or no pair is left by the noise.

    Examples:
        >>> task = MADRecall(vocabulary_size=8, length=8, training_sequences=1, held_out_sequences=1)
        >>> inputs, targets = next(task.held_out(1))
        >>> inputs.tolist(), targets.tolist()
        ([[1, 7, 1, 7, 2, 6, 1]], [[-100, -100, 7, -100, -100, -100, 7]])
    """

    vocabulary_size: int = 16
    length: int = 128
    multi_query: bool = True
    noise_share: float = 0.0
    noise_vocabulary: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length % 2:
            raise InputError(f"length must be even, got {self.length}. Give {self.length + 1}.")
        self._require_symbols(self._symbols)

    @property
    def items(self) -> int:
        """The number of keys, or of pairs where there are fewer."""
        return min(self._symbols // 2, self.length // 2 - 1)

    @property
    def _symbols(self) -> int:
        return self.vocabulary_size - self.noise_vocabulary - (not self.multi_query)

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        keys, pairs = self._symbols // 2, self.length // 2
        values: dict[int, int] = {}
        tokens, answers = list[int](), list[int]()
        spared = draws.number(pairs)  # never noise
        for pair in range(pairs - 1):
            if pair != spared and draws.happens(self.noise_share):
                tokens += [self._symbols + noise for noise in draws.numbers(self.noise_vocabulary, 2)]
                answers += [IGNORED, IGNORED]
                continue
            key = draws.number(keys)
            query = self.multi_query and key in values
            if key not in values:
                values[key] = keys + draws.number(self._symbols - keys)
            tokens += [key, values[key]]
            answers += [IGNORED, values[key] if query else IGNORED]
        if not values:
            raise InputError("noise_share must leave a pair in every sequence. Give less noise or a longer length.")
        key = list(values)[draws.number(len(values))]
        special = [] if self.multi_query else [self.vocabulary_size - 1]
        tokens += [*special, key, values[key]]
        answers += [*[IGNORED] * (1 + len(special)), values[key]]
        return tokens[:-1], (tokens if training else answers)[1:]
