"""Compression of mad-lab: the sequence itself is the answer."""

from __future__ import annotations

from dataclasses import dataclass

from statesize.lab.tasks.mad.task import Draws, NoisyTask, Sequence


@dataclass(frozen=True)
class MADCompression(NoisyTask):
    """Compression: random symbols and a token that ends them; the target at each position is the token there.

    In mad-lab an encoder keeps its last output only, and a decoder computes all tokens from it. A model that answers at
    the same positions needs no memory for that, and a training on this task warns: `Compression` is the task for
    language models.

    Attributes:
        vocabulary_size: number of token ids, `vocab_size` in mad-lab; the last one ends the sequence.
        length: tokens of a sequence, `seq_len` there.
        noise_share: share of tokens that are noise, `frac_noise` there; they are queried too, as there.
        noise_vocabulary: ids of noise, `noise_vocab_size` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range.

    Examples:
        >>> task = MADCompression(vocabulary_size=8, length=6, training_sequences=1, held_out_sequences=1)
        >>> next(task.held_out(1))[0].tolist()
        [[5, 4, 4, 6, 2, 7]]
    """

    vocabulary_size: int = 16
    length: int = 32
    noise_share: float = 0.0
    noise_vocabulary: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_symbols(self._symbols)

    @property
    def items(self) -> int:
        """The number of symbols."""
        return self.length - 1

    @property
    def _symbols(self) -> int:
        return self.vocabulary_size - self.noise_vocabulary - 1

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        del training
        tokens = draws.numbers(self._symbols, self.length - 1)
        for index in range(len(tokens)):
            if draws.happens(self.noise_share):
                tokens[index] = self._symbols + draws.number(self.noise_vocabulary)
        tokens.append(self.vocabulary_size - 1)
        return tokens, tokens
