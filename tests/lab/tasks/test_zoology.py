"""Zoology's recall, against digests of what its own generator returned for the same seeds."""

import hashlib

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, ZoologyMQAR, build_task

# The first 16 digits of SHA-256 of inputs and labels of `multiquery_ar` (HazyResearch/zoology, commit dbcb60d), run
# with its seed and torch.manual_seed(5).
DIGESTS = [
    (ZoologyMQAR(8, 64, 8192, 0.01, True), 40, 123, "f43029bd1d391498"),
    (ZoologyMQAR(16, 64, 128, 0.01, False), 50, 7, "fc9751b60bf677cf"),
    (ZoologyMQAR(4, 32, 64, 1.0, True), 20, 3, "8d52840e7b407489"),
]


@pytest.mark.parametrize(("task", "sequences", "seed", "digest"), DIGESTS)
def test_arrays_are_those_of_the_package_s_generator(task, sequences, seed, digest):
    arrays = task.arrays(sequences, seed, torch.Generator().manual_seed(5))
    found = hashlib.sha256(b"".join(array.numpy().astype("<i8").tobytes() for array in arrays)).hexdigest()
    assert found[:16] == digest


def test_each_pair_is_asked_once():
    task = build_task({"name": "zoology_mqar", "pairs": 5, "length": 40, "vocabulary_size": 64})
    inputs, targets = task.sample(50, torch.Generator().manual_seed(0))
    again, _ = task.sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(inputs, again)
    for sequence, answers in zip(inputs.tolist(), targets.tolist(), strict=True):
        told = dict(zip(sequence[0:10:2], sequence[1:10:2], strict=True))
        asked = [place for place, answer in enumerate(answers) if answer != IGNORED]
        assert all(place >= 10 and place % 2 == 0 for place in asked)
        assert sorted(sequence[place] for place in asked) == sorted(told)
        assert all(answers[place] == told[sequence[place]] for place in asked)


def test_the_position_tells_something():
    task = ZoologyMQAR(pairs=16, length=64, vocabulary_size=128)
    inputs, targets = task.sample(2000, torch.Generator().manual_seed(0))
    asked = (targets[:, 32::2, None] == inputs[:, None, 1:32:2]).double().sum(0)
    assert 0.11 < float(asked.amax(-1).sum() / asked.sum()) < 0.135


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"pairs": 8, "length": 30}, "length must be even and at least 4 pairs, 32, got 30"),
        ({"pairs": 4, "length": 33}, "length must be even"),
        ({"pairs": 4, "length": 64, "vocabulary_size": 64}, "vocabulary_size must be more than length"),
        ({"gap_power": 0.0}, "gap_power"),
    ],
)
def test_what_does_not_fit_is_refused(numbers, message):
    with pytest.raises(InputError, match=message):
        ZoologyMQAR(**numbers)
