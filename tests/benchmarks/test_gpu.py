"""The benchmark of a GPU, tried on the CPU: engines against themselves, and a model in bfloat16."""

import torch

from benchmarks.cases import CASES
from benchmarks.gpu import QUICK, engine_row, main, model_row

CPU = torch.device("cpu")


def test_an_engine_answers_the_same_on_its_own_device():
    row = engine_row(CASES[0], 64, CPU)
    assert (row["counts_differ"], row["entropy_difference"], row["length"]) == (0, 0.0, 64)
    assert row["cpu_seconds"] > 0
    assert row["gpu_seconds"] > 0


def test_a_model_of_the_shape_is_profiled():
    row = model_row(QUICK, 32, CPU)
    assert (row["mixers"], row["tokens"]) == (2, 32)
    assert row["faithfulness"] < 1e-2


def test_it_refuses_a_device_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("device must be one that torch finds, got cuda.")
