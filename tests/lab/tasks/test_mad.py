"""The tasks of mad-lab, against digests of what its own generators returned for the same seeds."""

import hashlib
import itertools
from collections import Counter

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import (
    IGNORED,
    MADCompression,
    MADFuzzyRecall,
    MADMemorisation,
    MADRecall,
    MADSelectiveCopying,
    SelectiveCopying,
    build_task,
    task_settings,
)

FEW = {"training_sequences": 40, "held_out_sequences": 20}

# The first 16 digits of SHA-256 of inputs and targets, first those to train on, that the functions of
# mad/data/instances.py returned (athms/mad-lab, commit 0f49a45) with default_rng(seed) after numpy.random.seed(seed).
DIGESTS = [
    (MADRecall(**FEW), "498db55665c72d94"),
    (MADRecall(32, 128, True, 0.2, 16, **FEW), "13f88092ee450c60"),
    (MADRecall(32, 64, False, 0.6, 16, held_out_seed=5, **FEW), "d0b1dd3266530b65"),
    (MADRecall(17, 36, False, held_out_seed=3, **FEW), "2af7f3eb6e539e24"),
    (MADFuzzyRecall(**FEW), "3d795312ef4bb174"),
    (MADFuzzyRecall(32, 96, 2, 3, False, 0.3, 8, held_out_seed=7, **FEW), "789e0f2c50c29a72"),
    (MADFuzzyRecall(13, 40, 1, 2, held_out_seed=9, **FEW), "6d40fe058396cbfc"),
    (MADSelectiveCopying(**FEW), "cb13220d8050ec2c"),
    (MADSelectiveCopying(9, 40, 7, held_out_seed=2, **FEW), "076625ad1b14e3dc"),
    (MADCompression(**FEW), "9e8b72423e6d1ba5"),
    (MADCompression(32, 64, 0.4, 16, held_out_seed=4, **FEW), "4b16075afc43f892"),
    (MADMemorisation(**FEW), "89256dbfbbcf408c"),
    (MADMemorisation(64, 16, 0.3, 8, map_seed=6, held_out_seed=1, **FEW), "fc42d81eedde1d44"),
]


@pytest.mark.parametrize(("task", "digest"), DIGESTS)
def test_arrays_are_those_of_the_package_s_generators(task, digest):
    arrays = [array.numpy().astype("<i8").tobytes() for pair in task.arrays for array in pair]
    assert hashlib.sha256(b"".join(arrays)).hexdigest()[:16] == digest
    assert build_task(task_settings(task)) == task


@pytest.mark.parametrize("task", [case[0] for case in DIGESTS])
def test_batches_are_of_the_sequences_to_train_on(task):
    inputs, targets = task.sample(8, torch.Generator().manual_seed(0))
    again, _ = task.sample(8, torch.Generator().manual_seed(0))
    assert torch.equal(inputs, again)
    known = {bytes(row.numpy()) for row in torch.cat(task.arrays[0], 1)}
    assert {bytes(row.numpy()) for row in torch.cat([inputs, targets], 1)} <= known
    held = [torch.cat(parts) for parts in zip(*task.held_out(7), strict=True)]
    assert all(torch.equal(*pair) for pair in zip(held, task.arrays[1], strict=True))
    assert int(inputs.max()) < task.vocabulary_size
    assert 0 < task.chance < 1


def answered(task):
    """Held-out sequences with the places of their targets."""
    for tokens, targets in zip(*(array.tolist() for array in task.arrays[1]), strict=True):
        yield tokens, [(place, answer) for place, answer in enumerate(targets) if answer != IGNORED]


def test_every_key_that_comes_again_is_asked():
    for tokens, asked in answered(MADRecall(32, 128, True, 0.2, 16, **FEW)):
        told, found = {}, []
        for place in range(0, 127, 2):
            key, value = tokens[place], [*tokens, None][place + 1]
            if key >= 16:
                continue
            if key in told:
                found.append((place, told[key]))
            told.setdefault(key, value)
        assert asked == found


def test_most_fuzzy_answers_can_be_known():
    """The probe is left out of some sequences, as there; then its answer stands nowhere."""
    unknown = 0
    for tokens, asked in answered(MADFuzzyRecall(held_out_sequences=500, training_sequences=1)):
        starts = [place for place, _ in asked]
        runs = [start for start in starts if start - 1 not in starts]
        key, answer = tokens[runs[-1] - 2 : runs[-1] + 1], [answer for place, answer in asked if place >= runs[-1]]
        motif = [*key, *answer]
        unknown += not any(tokens[i : i + len(motif)] == motif for i in range(runs[-1] - 2))
    assert 0 < unknown < 0.05 * 500


def test_symbols_are_told_in_order_and_the_last_one_stands_before_the_marker():
    task = MADSelectiveCopying(held_out_sequences=400, training_sequences=1)
    first = Counter()
    for tokens, asked in answered(task):
        assert [symbol for symbol in tokens if symbol < 14] == [answer for _, answer in asked]
        assert tokens[239] == 15
        assert tokens[238] < 14
        first[next(place for place, symbol in enumerate(tokens) if symbol < 14) < 14] += 1
    # Blanks before each symbol are binomial with mean 223 / 16 = 13.9; with all places alike they are geometric.
    ours = SelectiveCopying(16, 255, 14, held_out_sequences=400)
    early = (next(ours.held_out(400))[0][:, :14] < 14).any(1).double().mean()
    assert first[True] / 400 < 0.6 < early < 0.75
    assert task.chance == pytest.approx(SelectiveCopying(16).chance, abs=0.01)


def test_the_facts_are_the_same_in_all_sequences():
    task = MADMemorisation(held_out_sequences=200, training_sequences=200)
    facts = {}
    inputs, targets = (torch.cat(parts).tolist() for parts in zip(*task.arrays, strict=True))
    for tokens, answers in zip(inputs, targets, strict=True):
        for key, value in zip(tokens[::2], answers[1::2], strict=True):
            assert facts.setdefault(key, value) == value
    assert len(set(facts.values())) == len(facts) == 127
    assert task.chance < 2 / 127


def test_chance_of_recall_is_that_of_counting():
    """A value that several keys have is asked more often."""
    multi, single = (MADRecall(multi_query=many, training_sequences=1) for many in (True, False))
    assert 0.3 < multi.chance < 0.4
    assert 0.25 < single.chance < 0.45


@pytest.mark.parametrize(
    ("task", "numbers", "message"),
    [
        (MADRecall, {"length": 33}, "length must be even, got 33"),
        (MADRecall, {"vocabulary_size": 3}, "leaves 3. Give at least 4"),
        (MADRecall, {"noise_share": 0.2}, "noise_vocabulary must be at least 1"),
        (MADRecall, {"noise_share": 1.0, "noise_vocabulary": 2}, "noise_share"),
        (MADRecall, {"training_sequences": 0}, "training_sequences"),
        (MADFuzzyRecall, {"key_motif": 8}, "key_motif must be at most half of the 15 ids"),
        (MADFuzzyRecall, {"length": 18}, "length must be more than three pairs, 18, got 18"),
        (MADSelectiveCopying, {"length": 33}, "length must be more than 33"),
        (MADCompression, {"vocabulary_size": 4}, "leaves 3"),
        (MADMemorisation, {"noise_vocabulary": 252}, "leaves 3"),
    ],
)
def test_what_does_not_fit_is_refused(task, numbers, message):
    with pytest.raises(InputError, match=message):
        task(**numbers)


def test_noise_alone_is_refused():
    task = MADRecall(8, 4, noise_share=0.9, noise_vocabulary=2, **FEW)
    with pytest.raises(InputError, match="noise_share must leave a pair in every sequence"):
        list(itertools.islice(task.held_out(1), 1))
