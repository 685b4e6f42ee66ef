import numpy as np
import pytest
import torch
from oracles.recurrences import random_recurrence

from statesize.errors import EngineError
from statesize.operators import Convolution, Dense
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import choose_engine


def test_auto_takes_the_square_roots_where_they_are_smaller() -> None:
    small, large = random_recurrence("diagonal", 0, 20, 3), random_recurrence("diagonal", 0, 20, 10)
    cut = make_cut(20)
    assert choose_engine(small, cut, ("values",)).name == "square_root"
    assert choose_engine(small, cut, ("counts", "entropy", "relative")).name == "small_state"
    assert choose_engine(large, cut, ("values",)).name == "dense"
    assert choose_engine(small, make_cut(20, past=3), ("counts",)).name == "dense"
    assert choose_engine(small, make_cut(20, past=7, future=8), ("counts", "relative")).name == "square_root"
    assert choose_engine(Dense(torch.eye(20)), cut, ("entropy",)).name == "dense"


def test_messages_name_the_engines_that_can() -> None:
    convolution = Convolution(torch.ones(2), 5)
    with pytest.raises(
        EngineError, match="works on recurrences, not on this Convolution; these can: convolution, dense"
    ):
        choose_engine(convolution, make_cut(5), ("values",), "square_root")
    with pytest.raises(EngineError, match="does not cut blocks by past and future; these can: square_root, dense"):
        choose_engine(random_recurrence("full", 0, 9, 2), make_cut(9, future=2), ("counts",), "chunked")
    with pytest.raises(EngineError, match=r"engine must be one of auto, small_state, chunked.*, got 'fast'"):
        choose_engine(convolution, make_cut(5), ("values",), "fast")
    for name in ([], np.array(["dense", "dense"])):
        with pytest.raises(EngineError, match=r"engine must be one of auto"):
            choose_engine(convolution, make_cut(5), ("values",), name)


def test_auto_takes_an_elimination_where_it_is_faster() -> None:
    wide, cut = random_recurrence("delta", 0, 512, 32), make_cut(512)
    assert choose_engine(wide, cut, ("counts", "entropy", "relative")).name == "chunked"
    assert choose_engine(wide, cut, ("values",)).name == "square_root"
    g = torch.Generator().manual_seed(0)
    long, cut = Dense(torch.randn(128, 128, generator=g, dtype=torch.float64).tril()), make_cut(128)
    assert choose_engine(long, cut, ("counts",)).name == "tridiagonal"
    assert choose_engine(long, make_cut(128, 4), ("counts",)).name == "exact"
    assert choose_engine(long, cut, ("values",)).name == "dense"


@pytest.mark.parametrize(
    ("operator", "cut", "outputs", "taken"),
    [
        (random_recurrence("delta", 0, 512, 32), make_cut(512), ("counts", "entropy"), "chunked"),
        (random_recurrence("diagonal", 0, 64, 24), make_cut(64), ("counts",), "small_state"),
        (random_recurrence("delta", 0, 64, 24), make_cut(64), ("counts",), "dense"),
        (random_recurrence("delta", 0, 512, 128), make_cut(512, 32), ("counts", "entropy"), "exact"),
        (random_recurrence("delta", 0, 512, 128), make_cut(512, 16), ("counts", "entropy"), "square_root"),
        (random_recurrence("delta", 0, 2048, 130), make_cut(2048), ("counts", "entropy"), "square_root"),
        (random_recurrence("delta", 0, 256, 16), make_cut(256), ("counts",), "chunked"),
        (random_recurrence("full", 0, 64, 4), make_cut(64, past=20, future=20), ("entropy",), "square_root"),
        (Convolution(torch.ones(3), 64), make_cut(64), ("values",), "convolution"),
        (Dense(torch.eye(200)), make_cut(200), ("counts", "relative"), "tridiagonal"),
        (Dense(torch.eye(128)), make_cut(128), ("counts", "entropy", "relative"), "exact"),
        (Dense(torch.eye(40)), make_cut(40), ("counts", "relative"), "dense"),
    ],
)
def test_the_fastest_that_can_is_taken(operator, cut, outputs, taken) -> None:
    assert choose_engine(operator, cut, outputs).name == taken
