"""What runs on devices without compiled kernels, on CPU tensors, against the definition."""

import importlib

import pytest
import torch
from oracles.kernels import irregular
from oracles.operators import random_operator
from oracles.recurrences import random_recurrence

from statesize.operators import Convolution, Dense, Shared
from statesize.spectra.choice import ENGINES, choose_engine
from statesize.spectra.cut import make_cut
from statesize.testing import compare_with_definition

CHOOSING = (
    "exact.square_root",
    "lanes.small_state",
    "shifts.bordered",
)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch) -> None:
    """As if tensors lay on another device."""
    for name in CHOOSING:
        module = importlib.import_module(f"statesize.spectra.{name}")
        monkeypatch.setattr(module, "has_compiled_kernels", lambda device: False)


@pytest.mark.parametrize("family", ["diagonal", "full", "delta", "complex", "attention", "long convolution"])
@pytest.mark.parametrize("engine", ["square_root", "chunked", "streaming", "tridiagonal", "convolution"])
def test_agrees_with_the_definition(engine: str, family: str) -> None:
    operator, cut = random_operator(family, 0, 70), make_cut(70)
    if ENGINES[engine].unsupported_reason(operator, cut, ("counts",)) is not None:
        pytest.skip("not for this engine")
    compare_with_definition(ENGINES[engine], operator, cut)


def test_auto_prefers_what_stays_there() -> None:
    every, counts = make_cut(200), ("counts", "entropy")
    small, full = random_recurrence("diagonal", 0, 200, 4, (8,)), Dense(torch.eye(200, dtype=torch.float64))
    kernel = Convolution(irregular(0, 200), 200)
    assert choose_engine(small, every, counts).name == "square_root"
    assert choose_engine(full, every, (*counts, "relative")).name == "tridiagonal"
    assert choose_engine(kernel, every, counts).name == "convolution"
    shared = Shared(Dense(torch.eye(200, dtype=torch.float64)[None]))
    assert choose_engine(shared, every, counts).name == "tridiagonal"
