"""Memorisation of mad-lab: facts that stand in the weights, not in the sequence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from statesize.check import require_count
from statesize.lab.tasks.mad.task import Draws, NoisyTask, Sequence
from statesize.lab.tasks.task import IGNORED


@dataclass(frozen=True)
class MADMemorisation(NoisyTask):
    """Memorisation: keys, each followed by a special token, where the value that always belongs to it is queried.

    The values never stand in the input, and the map from keys to values is the same in all sequences: a model needs
    weights for it, and no state but for the last token. Keys are the first half of the ids that are neither noise nor
    special, values the second half; the special token is the last id.

    Attributes:
        vocabulary_size: number of token ids, `vocab_size` in mad-lab.
        length: tokens of a sequence, even; `seq_len` there.
        noise_share: share of pairs that are noise, `frac_noise` there.
        noise_vocabulary: ids of noise, `noise_vocab_size` there.
        map_seed: of the map, `kv_map_seed` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = MADMemorisation(vocabulary_size=9, length=4, training_sequences=1, held_out_sequences=1)
        >>> inputs, targets = next(task.held_out(1))
        >>> inputs.tolist(), targets.tolist()
        ([[2, 8, 1, 8]], [[-100, 6, -100, 5]])
    """

    vocabulary_size: int = 256
    length: int = 32
    noise_share: float = 0.0
    noise_vocabulary: int = 0
    map_seed: int = 12_345
    training_sequences: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("map_seed", self.map_seed, 0)
        self._require_symbols(self._symbols)

    @property
    def items(self) -> int:
        """1, the key before the queried position."""
        return 1

    @property
    def _symbols(self) -> int:
        return self.vocabulary_size - self.noise_vocabulary - 1

    @cached_property
    def _facts(self) -> list[tuple[int, int]]:
        """Keys with their values, in the order in which they are drawn from."""
        generator, half = np.random.default_rng(self.map_seed), self._symbols // 2
        keys, values = np.arange(half), np.arange(half, self._symbols)
        generator.shuffle(keys)
        generator.shuffle(values)
        return list(zip(keys.tolist(), values.tolist(), strict=False))

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        del training
        tokens, answers = list[int](), list[int]()
        spared = draws.number(self.length // 2)  # never noise
        for pair in range(self.length // 2):
            if pair != spared and draws.happens(self.noise_share):
                tokens += [self._symbols + noise for noise in draws.numbers(self.noise_vocabulary, 2)]
                answers += [IGNORED, IGNORED]
                continue
            key, value = self._facts[draws.number(len(self._facts))]
            tokens += [key, self.vocabulary_size - 1]
            answers += [IGNORED, value]
        return tokens, answers
