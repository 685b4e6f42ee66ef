"""Records as bytes: what is written is read, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from statesize.adapters import Captured
from statesize.measurement.settings import check_settings
from statesize.operators import Recurrence
from statesize.profiling.measuring import measure_mixer, plan_work
from statesize.results.datasets import SequenceRecord


@pytest.fixture(scope="module")
def record():
    generator = torch.Generator().manual_seed(0)
    key, query = torch.randn(2, 1, 3, 9, 2, generator=generator, dtype=torch.float64)
    operator = Recurrence(torch.full((1, 3, 9, 1), 0.9, dtype=torch.float64), key, query)
    item = Captured("layer", "decay", 4, 3, lambda units: operator[:, units], 64, 1e-9, 0.0)
    settings = check_settings(tolerances=(1e-3, 1e-1))
    return measure_mixer(item, 0, plan_work(item, 0, 9, 9, settings), settings)


def values(record):
    found = vars(record) | record.arrays | vars(record.sample)
    return [found[name] for name in sorted(found.keys() - {"arrays", "sample"})]


def test_round_trip(record):
    read = SequenceRecord.from_bytes(record.to_bytes())
    for before, after in zip(values(record), values(read), strict=True):
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_cut_short(record, length):
    with pytest.raises(ValueError, match=r"no record|Expecting|Unterminated"):
        SequenceRecord.from_bytes(record.to_bytes()[:length])


def test_fields_of_another_version(record):
    @dataclasses.dataclass(frozen=True, eq=False)
    class Later(SequenceRecord):
        median: float = 0.0

    with pytest.raises(ValueError, match="of other fields"):
        SequenceRecord.from_bytes(Later(**vars(record)).to_bytes())
