"""Copying, against digests of what S4's data set returned for the same state of torch's generator."""

import hashlib

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import IGNORED, Copying, build_task, task_settings

# The first 16 digits of SHA-256 of inputs and answers of `torch_copying_data` (state-spaces/s4, commit e757cef) after
# torch.manual_seed(3).
DIGESTS = [
    (Copying(), "d8ddec2bfa86f2bd"),
    (Copying(5, 20, 6, spread=True), "7fa9bb57ae8cdf18"),
    (Copying(64, 0, 62, reverse=True), "60a1dd66f66f234e"),
    (Copying(4, 9, 3, spread=True, reverse=True), "904ab353b077a9fe"),
]


@pytest.mark.parametrize(("task", "digest"), DIGESTS)
def test_arrays_are_those_of_the_data_set(task, digest):
    inputs, targets = task.sample(30, torch.Generator().manual_seed(3))
    arrays = (inputs, targets[:, -task.tokens :].contiguous())
    assert (
        hashlib.sha256(b"".join(array.numpy().astype("<i8").tobytes() for array in arrays)).hexdigest()[:16] == digest
    )
    assert inputs.shape == targets.shape == (30, task.length)
    assert bool((targets[:, : -task.tokens] == IGNORED).all())
    assert build_task(task_settings(task)) == task
    for tokens, wanted in zip(inputs.tolist(), targets[:, -task.tokens :].tolist(), strict=True):
        symbols = [token for token in tokens if 0 < token <= task.symbols]
        assert (symbols[::-1] if task.reverse else symbols) == wanted


@pytest.mark.parametrize("numbers", [{"tokens": 1}, {"blanks": -1}, {"symbols": 1}, {"spread": 1}])
def test_what_does_not_fit_is_refused(numbers):
    with pytest.raises(InputError, match=next(iter(numbers))):
        Copying(**numbers)
