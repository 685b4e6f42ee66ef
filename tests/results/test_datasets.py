"""A mixer over one sequence as bytes: what is written is read, and nothing else; sequences together are one dataset."""

import numpy as np
import pytest
import torch

from statesize.adapters import Captured
from statesize.adapters.check import Agreement
from statesize.adapters.observation import DERIVATIVE
from statesize.codes import Code, Note
from statesize.measurement.settings import Settings
from statesize.operators import Recurrence
from statesize.profiling.work import measure_mixer, plan_work
from statesize.results.datasets import joined_mixer

SETTINGS = Settings(tolerances=(1e-3, 1e-1))


def measured(length, settings=SETTINGS):
    generator = torch.Generator().manual_seed(0)
    key, query = torch.randn(2, 1, 3, length, 2, generator=generator, dtype=torch.float64)
    operator = Recurrence(torch.full((1, 3, length, 1), 0.9, dtype=torch.float64), key, query)
    checked = {"operator_difference": 0.0, "agreement": Agreement(1e-9, 1e-5)}
    item = Captured(
        "layer",
        "decay",
        units=3,
        multiplicity=4,
        state_bytes=64,
        units_operator=lambda units: operator[:, units],
        **checked,
    )
    return measure_mixer(item, 0, plan_work(item, 0, length, length, settings), settings)


@pytest.fixture(scope="module")
def dataset():
    return measured(9)


@pytest.mark.parametrize(
    ("length", "windows", "cuts", "middle"),
    [(9, {}, 8, 4), (8, {}, 7, 4), (9, {"past": 3}, 6, 4), (9, {"past": 5, "future": 2}, 3, 5)],
)
def test_cuts_and_the_one_nearest_to_the_middle(length, windows, cuts, middle):
    one = measured(length, Settings(**windows))
    assert (float(one["cuts"][0]), float(one["middle"][0]), (one["position"].values > 0).sum()) == (cuts, middle, cuts)
    assert (0 in one["position"]) == (not windows)


def test_sequences_together(dataset):
    datasets = {0: dataset, 2: measured(6).assign_attrs(notes=[Note(Code.UNSEEN).to_json()])}
    joined, left_out = joined_mixer([0, 2], 3, datasets.__getitem__)
    assert left_out == {}
    assert joined.sizes["sequence"] == 3
    assert joined["position"].values.tolist() == list(range(9))
    np.testing.assert_array_equal(joined["entropy"][0], dataset["entropy"][0])
    np.testing.assert_array_equal(joined["entropy"][2, :, :6], datasets[2]["entropy"][0])
    unknown = joined.isel(sequence=[1])[["entropy", "count", "ceiling", "state_bytes", "faithfulness"]]
    assert bool(unknown.isnull().all().to_array().all())
    assert joined["entropy"][2, :, 6:].isnull().all()
    assert joined["entropy"].dtype == np.float32


@pytest.mark.parametrize("otherwise", [{"stratum_sizes": [6]}, {"kind": DERIVATIVE}])
def test_a_sequence_with_other_heads_or_a_derivative_is_left_out(dataset, otherwise):
    datasets = {0: dataset, 1: dataset.assign_attrs(otherwise)}
    joined, left_out = joined_mixer([0, 1], 2, datasets.__getitem__)
    assert {sequence: note.code for sequence, note in left_out.items()} == {1: Code.NOT_COMPARABLE}
    assert bool(joined["entropy"][1].isnull().all())
