"""Kneser-Ney against an implementation with dictionaries, written from the formulas of Chen & Goodman."""

import itertools
import math
from collections import Counter, defaultdict

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import TextTask
from statesize.lab.tasks.language.ngram import fit_kneser_ney, mean_nats


def markov_stream(length, vocabulary_size, seed):
    """Tokens of a random second-order chain with a skewed law, so that counts of 1, 2, 3 and 4 all occur."""
    generator = torch.Generator().manual_seed(seed)
    law = torch.rand(vocabulary_size, vocabulary_size, vocabulary_size, generator=generator).pow(6)
    tokens = [0, 1]
    while len(tokens) < length:
        tokens.append(int(torch.multinomial(law[tokens[-2], tokens[-1]], 1, generator=generator)))
    return torch.tensor(tokens)


def quoting_stream(length, vocabulary_size, seed):
    """Tokens by Zipf's law that quote what came before: counts of 1 to 4 occur at every order, as in text."""
    generator = torch.Generator().manual_seed(seed)
    law = 1 / torch.arange(1, vocabulary_size + 1)
    tokens = torch.multinomial(law, length, replacement=True, generator=generator).tolist()
    for start in range(20, length - 6, 6):
        source = int(torch.randint(start - 4, (1,), generator=generator))
        tokens[start : start + 4] = tokens[source : source + 4]
    return torch.tensor(tokens)


class DictionaryKneserNey:
    def __init__(self, tokens, order, vocabulary_size):
        self.order, self.vocabulary_size = order, vocabulary_size
        self.counts = {}
        windows = [tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1)]
        self.counts[order] = Counter(windows)
        for lower in range(order - 1, 0, -1):
            before = defaultdict(set)
            for gram in self.counts[lower + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[lower] = Counter({gram: len(tokens) for gram, tokens in before.items()})

    def discount(self, order, count):
        n = Counter(self.counts[order].values())
        y = n[1] / (n[1] + 2 * n[2])
        return {1: 1 - 2 * y * n[2] / n[1], 2: 2 - 3 * y * n[3] / n[2], 3: 3 - 4 * y * n[4] / n[3]}[min(count, 3)]

    def probability(self, context, token):
        order = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / self.vocabulary_size
        after = {gram[-1]: count for gram, count in self.counts[order].items() if gram[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        left = sum(self.discount(order, count) for count in after.values()) / total
        own = max(after[token] - self.discount(order, after[token]), 0) / total if token in after else 0
        return own + left * lower


@pytest.mark.parametrize("order", [1, 2, 3])
def test_equals_the_dictionary_implementation(order):
    vocabulary_size = 200
    tokens = quoting_stream(600, vocabulary_size, seed=18)
    model = fit_kneser_ney(tokens, order, vocabulary_size + 1)
    reference = DictionaryKneserNey(tokens.tolist(), order, vocabulary_size + 1)
    for level in range(1, order + 1):
        # The estimates of the discounts are as published only where counts of 1 to 3 occur and discounts grow.
        assert 0 < reference.discount(level, 1) < reference.discount(level, 2) < reference.discount(level, 3)
    generator = torch.Generator().manual_seed(9)
    # Half of the n-grams were seen, the others are at random, with ids that were never seen.
    seen = tokens.unfold(0, order, 1)[torch.randint(500, (100,), generator=generator)]
    grams = torch.cat([seen, torch.randint(vocabulary_size + 1, (100, order), generator=generator)])
    contexts, targets = grams[:, :-1], grams[:, -1]
    expected = [
        reference.probability(tuple(context), target)
        for context, target in zip(contexts.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        model.probability(contexts, targets), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [4, 5, 20, 400])
def test_is_a_distribution_for_every_context(order, length):
    vocabulary_size = 7
    tokens = markov_stream(length, vocabulary_size - 1, seed=length)
    model = fit_kneser_ney(tokens, order, vocabulary_size)
    # The last id never occurs, so contexts with it are unseen at every order.
    contexts = torch.tensor(list(itertools.product(range(vocabulary_size), repeat=order - 1)), dtype=torch.int64)
    everything = model.probability(
        contexts.repeat_interleave(vocabulary_size, dim=0), torch.arange(vocabulary_size).repeat(len(contexts))
    ).view(-1, vocabulary_size)
    assert (everything > 0).all()
    torch.testing.assert_close(everything.sum(1), torch.ones(len(contexts), dtype=torch.float64), rtol=1e-12, atol=0)


def test_counts_without_singletons_still_leave_something():
    model = fit_kneser_ney(torch.tensor([0, 1] * 50), 2, 3)
    assert 0 < model.probability(torch.tensor([[0]]), torch.tensor([2])) < 0.05


def test_unseen_trigram_context_uses_the_bigram():
    tokens = markov_stream(300, 6, seed=0)
    trigram, bigram = (fit_kneser_ney(tokens, order, 7) for order in (3, 2))
    unseen = trigram.probability(torch.tensor([[6, 2]]).expand(7, 2), torch.arange(7))
    # The bigram inside a trigram model counts predecessors and not occurrences: the same order of the vocabulary ends.
    assert unseen.sum() == pytest.approx(1, abs=1e-12)
    assert not torch.allclose(unseen, bigram.probability(torch.tensor([[2]]).expand(7, 1), torch.arange(7)))


def test_mean_nats_predicts_every_token_from_those_before_it():
    train, held_out = markov_stream(300, 6, seed=0), markov_stream(40, 6, seed=0)
    model = fit_kneser_ney(train, 3, 6)
    stream = held_out.tolist()
    stream = stream[-2:] + stream
    nats = [
        -math.log(float(model.probability(torch.tensor([stream[i - 2 : i]]), torch.tensor([stream[i]]))))
        for i in range(2, len(stream))
    ]
    assert mean_nats(model, held_out) == pytest.approx(sum(nats) / 40, rel=1e-12)


def test_unigram_mean_is_close_to_the_entropy_of_the_law():
    law = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    draw = torch.multinomial(law, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    model = fit_kneser_ney(draw[:20_000], 1, 4)
    task = TextTask(draw[:20_000], draw[20_000:], length=8, held_out_bytes=20_000, vocabulary_size=4)
    bits = task.report(mean_nats(model, task.held_out_tokens), 0.0)["bits_per_byte"]
    assert bits == pytest.approx(1.75, abs=0.02)


def test_higher_orders_are_better_on_a_chain():
    train, held_out = markov_stream(4000, 6, seed=1), markov_stream(4500, 6, seed=1)[4000:]
    unigram, bigram, trigram = (mean_nats(fit_kneser_ney(train, order, 6), held_out) for order in (1, 2, 3))
    assert trigram < bigram < unigram < math.log(6)


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [
        ([0, 1, 2], 0, r"order must be .*got 0"),
        ([0, 1, 2], 7, r"order must be .*2\^63, got 7"),
        ([0, 1], 3, "tokens must be at least 3 for n-grams of order 3, got 2"),
    ],
)
def test_bad_counts_are_refused(tokens, order, message):
    with pytest.raises(InputError, match=message):
        fit_kneser_ney(torch.tensor(tokens), order, 1024)
