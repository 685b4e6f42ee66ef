"""In-context recall of mad-lab, with noise, from memory, and with keys and values of several tokens."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

from statesize.check import require_count
from statesize.errors import InputError
from statesize.lab.tasks.mad import Draws, NoisyTask, Sequence
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
                tokens += self._noise(draws, 2)
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

    @property
    def items(self) -> int:
        """1, the key before the queried position."""
        return 1

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
                tokens += self._noise(draws, 2)
                answers += [IGNORED, IGNORED]
                continue
            key, value = self._facts[draws.number(len(self._facts))]
            tokens += [key, self.vocabulary_size - 1]
            answers += [IGNORED, value]
        return tokens, answers


Motif: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class MADFuzzyRecall(NoisyTask):
    """Fuzzy in-context recall: keys of up to `key_motif` tokens and values of up to `value_motif`, all different ones.

    Pairs follow each other without separators, or as much noise; one of them, the probe, comes again at the end. With
    `multi_query`, every value of a key that was there before is queried, else only that of the probe, after a special
    token, the last id. Sequences are filled up at their start with the id below the special ones. To train on, keys
    have any number of tokens and every next token is a target; to evaluate, keys have `key_motif` tokens.

    Attributes:
        vocabulary_size: number of token ids, `vocab_size` in mad-lab.
        length: tokens of a sequence, `seq_len` there.
        key_motif: most tokens of a key, `k_motif_size` there.
        value_motif: most tokens of a value, `v_motif_size` there.
        multi_query: whether all keys that come again are queried.
        noise_share: share of pairs that are noise, `frac_noise` there.
        noise_vocabulary: ids of noise, `noise_vocab_size` there.
        training_sequences: sequences to train on.
        held_out_sequences: sequences to evaluate on.
        held_out_seed: of all sequences.

    Raises:
        InputError: a number is out of range, or motifs do not fit in the vocabulary or the length.

    Examples:
        >>> task = MADFuzzyRecall(9, 16, 2, 1, training_sequences=1, held_out_sequences=1)
        >>> inputs, targets = next(task.held_out(1))
        >>> inputs.shape, (targets != IGNORED).sum().item()
        (torch.Size([1, 16]), 2)
    """

    vocabulary_size: int = 16
    length: int = 128
    key_motif: int = 3
    value_motif: int = 3
    multi_query: bool = True
    noise_share: float = 0.0
    noise_vocabulary: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("key_motif", "value_motif"):
            require_count(name, getattr(self, name))
            if getattr(self, name) > self._symbols // 2:
                raise InputError(
                    f"{name} must be at most half of the {self._symbols} ids that are neither noise nor special, got "
                    f"{getattr(self, name)}. Give a smaller one, or a larger vocabulary_size."
                )
        if self.length <= 3 * (self.key_motif + self.value_motif):
            raise InputError(
                f"length must be more than three pairs, {3 * (self.key_motif + self.value_motif)}, got {self.length}. "
                "Give a longer one, or smaller motifs."
            )

    @property
    def items(self) -> int:
        """The number of pairs with keys and values of most tokens that fit in the length."""
        return self.length // (self.key_motif + self.value_motif) - 1

    @property
    def _symbols(self) -> int:
        return self.vocabulary_size - self.noise_vocabulary - (1 if self.multi_query else 2)

    @cached_property
    def _motifs(self) -> tuple[list[list[Motif]], list[list[Motif]]]:
        """Keys and values, by their number of tokens, in lexicographic order."""
        half = self._symbols // 2
        keys = [list(itertools.permutations(range(half), 1 + size)) for size in range(self.key_motif)]
        values = [
            list(itertools.permutations(range(half, self._symbols), 1 + size)) for size in range(self.value_motif)
        ]
        return keys, values

    def _sequence(self, draws: Draws, training: bool) -> Sequence:
        keys, values = _Shuffled(draws, self._motifs[0], training), _Shuffled(draws, self._motifs[1], True)
        key_size, value_size = keys.size(), values.size()
        probe, answer = keys.motif(key_size), values.motif(value_size)
        probed = len(probe) + len(answer)
        start = draws.number(self.length - 2 * probed)
        pairs: dict[Motif, Motif] = {}
        tokens, answers, placed = list[int](), list[int](), False
        while len(tokens) < self.length - probed - self.key_motif - self.value_motif:
            # Drawn also where the probe is put, which uses neither.
            key_size, value_size = keys.size(), values.size()
            if len(tokens) >= start and not placed:
                key, value, query, placed = probe, answer, False, True
            elif draws.happens(self.noise_share):
                tokens += self._noise(draws, key_size + value_size)
                answers += [IGNORED] * (key_size + value_size)
                continue
            else:
                key = keys.motif(key_size)
                placed = placed or key == probe
                query = self.multi_query and key in pairs
                value = answer if key == probe else pairs[key] if key in pairs else values.motif(value_size)
            pairs[key] = value
            tokens += [*key, *value]
            answers += [*[IGNORED] * len(key), *(value if query else [IGNORED] * len(value))]
        special = [] if self.multi_query else [self.vocabulary_size - 1]
        tokens += [*special, *probe, *answer]
        answers += [*[IGNORED] * (len(special) + len(probe)), *answer]
        padding = self.length + 1 - len(tokens)
        tokens = [self._symbols + self.noise_vocabulary] * padding + tokens
        return tokens[:-1], (tokens if training else [IGNORED] * padding + answers)[1:]


class _Shuffled:
    """Motifs of each size in an order of one sequence; without `all_sizes`, those of the largest size only."""

    def __init__(self, draws: Draws, motifs: list[list[Motif]], all_sizes: bool) -> None:
        self._draws, self._all_sizes, self._motifs = draws, all_sizes, motifs
        self._order = [draws.order(len(group)) for group in (motifs if all_sizes else motifs[-1:])]

    def size(self) -> int:
        """Tokens of the next motif."""
        return 1 + self._draws.number(len(self._motifs)) if self._all_sizes else len(self._motifs)

    def motif(self, size: int) -> Motif:
        """One of this size."""
        order = self._order[size - 1 if self._all_sizes else 0]
        return self._motifs[size - 1][order[self._draws.number(len(order))]]
