import numpy as np
import pytest
import torch
from oracles.recurrences import random_recurrence

from statesize.errors import EngineError
from statesize.operators import Convolution, Dense
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import choose_engine


def test_messages_name_the_engines_that_can() -> None:
    convolution = Convolution(torch.ones(2), 5)
    with pytest.raises(
        EngineError,
        match="works on real diagonal recurrences of at most 32 states, not on this Convolution; these can: exact",
    ):
        choose_engine(convolution, make_cut(5), ("values",), "small_state")
    with pytest.raises(EngineError, match="does not cut blocks by past and future; these can: exact, dense"):
        choose_engine(random_recurrence("full", 0, 9, 2), make_cut(9, future=2), ("counts",), "all_cuts")
    with pytest.raises(EngineError, match=r"engine must be one of auto, small_state, all_cuts.*, got 'fast'"):
        choose_engine(convolution, make_cut(5), ("values",), "fast")
    for name in ([], np.array(["dense", "dense"])):
        with pytest.raises(EngineError, match=r"engine must be one of auto"):
            choose_engine(convolution, make_cut(5), ("values",), name)


@pytest.mark.parametrize(
    ("operator", "cut", "outputs", "taken"),
    [
        (random_recurrence("diagonal", 0, 64, 24), make_cut(64), ("counts",), "small_state"),
        (random_recurrence("delta", 0, 512, 32), make_cut(512), ("counts", "entropy"), "all_cuts"),
        (random_recurrence("delta", 0, 512, 32), make_cut(512), ("values",), "exact"),
        (random_recurrence("delta", 0, 512, 128), make_cut(512, 32), ("counts", "entropy"), "exact"),
        (Convolution(torch.ones(3), 64), make_cut(64), ("values",), "dense"),
        (Dense(torch.eye(200)), make_cut(200), ("counts",), "all_cuts"),
        (Dense(torch.eye(600)), make_cut(600, 32), ("counts", "entropy"), "exact"),
        (Dense(torch.eye(20)), make_cut(20), ("counts",), "dense"),
        (Dense(torch.eye(200)), make_cut(200, past=9), ("counts",), "dense"),
    ],
)
def test_the_fastest_that_can_is_taken(operator, cut, outputs, taken) -> None:
    assert choose_engine(operator, cut, outputs).name == taken
