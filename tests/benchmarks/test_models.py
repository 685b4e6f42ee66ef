import json
from types import SimpleNamespace

import pytest
import torch

from statesize.benchmarks.models import benchmark_models, measure_layer, model_cases

CASES = {case.name: case for case in model_cases(quick=True)}
UNITS = {"falcon_mamba": 64, "llama_3": 4, "mamba_2": 8, "qwen3_next": 4}


@pytest.mark.parametrize("name", CASES)
def test_a_row(name):
    case, length = CASES[name], 40
    row = SimpleNamespace(**measure_layer(case, length, torch.get_num_threads()))
    assert (row.case, row.length, row.units) == (name, length, UNITS[name])
    assert row.spectra == UNITS[name] * (length - 1)
    assert (row.tolerances, row.relative_tolerances, row.count_accuracy) == ((1e-3,), (1e-2,), 0)
    assert row.seconds == pytest.approx(row.capture_seconds + row.operator_seconds + row.measuring_seconds)
    assert min(row.capture_seconds, row.operator_seconds, row.measuring_seconds, row.processor_seconds) > 0
    assert row.microseconds_per_spectrum == pytest.approx(1e6 * row.seconds / row.spectra)
    assert row.ratio == pytest.approx(row.dense_seconds / row.seconds)
    assert row.model_seconds == pytest.approx(case.layers * row.seconds)
    assert (row.dense_units, row.dense_positions) == (2, 8)
    assert 0 < row.faithfulness < 1e-4
    assert json.loads(json.dumps(vars(row)))["units"] == row.units


@pytest.mark.slow
def test_a_document_and_the_memory_of_a_process_of_its_own():
    rows = []
    document = benchmark_models((CASES["qwen3_next"],), 64, on_row=rows.append)
    assert document["rows"] == rows
    assert document["schema"] == 1
    assert document["rows"][0]["peak_bytes"] > 8 * 64 * 32 * 4
    assert set(document["versions"]) >= {"statesize", "torch", "transformers"}
