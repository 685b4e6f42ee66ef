"""How much is asked of an engine at once, and which other engines are asked then."""

from dataclasses import replace

import pytest
import torch
from oracles.recurrences import random_recurrence

from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Dense, Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES, Question, dispatch
from statesize.spectra.engine import Engine, Footprint

PLENTY = 2**40


class Noting(Engine):
    """An engine that notes the batch shape and the positions of each call, of a size that a test says."""

    def __init__(self, name, seen, each=None, shared=0, block_bytes=PLENTY):
        self.name, self.block_bytes = name, block_bytes
        self._engine, self._seen, self._each, self._shared = ENGINES[name], seen, each, shared

    def blocks(self, operator, cut):
        self._seen.append((tuple(operator.batch_shape), list(cut.positions)))
        return self._engine.blocks(operator, cut)

    def footprint(self, operator, cut):
        each = self._each(len(cut.positions)) if self._each else self._engine.footprint(operator, cut).each
        return Footprint(each, self._shared)


def question(cut, memory=PLENTY, *, values=False, **threads):
    def ask(blocks):
        found = {"norm": blocks.norms(), "error_bound": blocks.error_bound}
        return found | ({"values": blocks.singular_values()} if values else {})

    return Question(cut, ask, memory, **threads)


@pytest.mark.parametrize(
    ("size", "memory", "parts"),
    [
        (lambda count: 1000 * count, 8000, [8]),
        (lambda count: 1000 * count, 7999, [4, 4]),
        (lambda count: 1000 * count, 3500, [2, 2, 2, 2]),
        (lambda count: 1000 * count, 10, [1] * 8),
        # Half the positions take three quarters of the memory, then more than that.
        (lambda count: 8 + count, 10, [4, 4]),
        (lambda count: 9 + count, 10, [8]),
    ],
)
def test_positions_that_do_not_fit_are_taken_in_parts(size, memory, parts):
    operator, cut, seen = random_recurrence("full", 0, 9, 3), make_cut(9), []
    whole, _ = dispatch(operator, ENGINES["dense"], question(cut, values=True))
    found, used = dispatch(operator, Noting("dense", seen, size), question(cut, memory, values=True))
    assert [len(positions) for _, positions in seen] == parts
    assert [position for _, positions in seen for position in positions] == list(range(1, 9))
    assert used == "dense"
    assert {name: part.shape for name, part in found.items()} == {name: part.shape for name, part in whole.items()}
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize(
    ("shared", "portion", "memory", "parts"),
    [(0, PLENTY, 41, [4, 4, 2]), (5, PLENTY, 40, [3, 3, 3, 1]), (0, 20, 40, [2] * 5), (0, PLENTY, 101, [10])],
)
@pytest.mark.parametrize("shape", [(10,), (2, 5), (1, 10), (10, 1)])
def test_entries_that_do_not_fit_are_taken_in_turn(shape, shared, portion, memory, parts):
    operator, cut, seen = random_recurrence("diagonal", 0, 6, 2, batch=shape), make_cut(6, [3]), []
    engine = Noting("exact", seen, lambda count: 10, shared, portion)
    found, _ = dispatch(operator, engine, question(cut, memory))
    assert [torch.Size(shape).numel() for shape, _ in seen] == parts
    torch.testing.assert_close(found["norm"], dispatch(operator, ENGINES["exact"], question(cut))[0]["norm"])


@pytest.mark.parametrize(
    ("each", "memory", "parts"), [(2**24, 2**27, [2, 2]), (2**21, 2**27, [4]), (2**24, 2**25, [1] * 4)]
)
def test_a_thread_of_its_own_for_much_work(each, memory, parts):
    operator, cut, seen = random_recurrence("diagonal", 0, 6, 2, batch=(4,)), make_cut(6, [3]), []
    engine = Noting("exact", seen, lambda count: each, 2**20)
    torch.set_num_threads(2)
    try:
        found, _ = dispatch(operator, engine, question(cut, memory))
    finally:
        torch.set_num_threads(1)
    assert [shape[0] for shape, _ in seen] == parts
    assert found["norm"].shape == (4, 1)


class Squaring(Noting):
    """An engine that loses what it cannot square."""

    def blocks(self, operator, cut):
        found = super().blocks(operator, cut)
        return replace(found, values=found.values.square().sqrt())


def test_entries_whose_squares_overflow_are_asked_of_another_engine():
    scales, seen = torch.tensor([1.0, 1e200, 2.0], dtype=torch.float64), []
    engine = Squaring("dense", seen)
    engine.name = "small_state"
    operator = Dense(scales[:, None, None] * torch.ones(6, 6, dtype=torch.float64).tril())
    found, used = dispatch(operator, engine, question(make_cut(6, [2])))
    assert (used, seen) == ("small_state, exact", [((3,), [2])])
    torch.testing.assert_close(found["norm"], 8**0.5 * scales[:, None])


def test_the_position_that_overflows_is_named():
    B = torch.ones(64, 2, dtype=torch.float64)
    B[3] = 1e200
    operator = Recurrence(torch.ones(64, 1, dtype=torch.float64), B, torch.full((64, 2), 1e200, dtype=torch.float64))
    with pytest.raises(InputError, match=r"^T must be finite, got entries that overflow float64 at position 4\."):
        dispatch(operator, ENGINES["exact"], question(make_cut(64, [2, 4])))
    parts = (part.expand(1, 2, *part.shape).clone() for part in (operator.A, torch.ones_like(B), operator.C))
    two = Recurrence(*parts)
    two.B[0, 1] = B
    with pytest.raises(InputError, match=r"^T must be finite, .* at batch entry \(0, 1\), position 5\."):
        dispatch(two, ENGINES["exact"], question(make_cut(64, [2, 5])))


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def spread(operator, engine, positions, **asked):
    """What an engine answers if a thread of its own is worth any work."""
    return dispatch(
        operator, ENGINES[engine], question(make_cut(operator.length, positions), worth_a_thread=1, **asked)
    )


@pytest.mark.parametrize("engine", ["exact", "all_cuts", "dense"])
def test_heads_spread_over_threads_give_the_same(engine, two_threads):
    heads = random_recurrence("diagonal", 0, 96, 48, (2, 8))
    (found, used), (alone, _) = spread(heads, engine, 12), spread(heads[1, 3], engine, 12)
    assert used == engine
    torch.testing.assert_close(found["norm"][1, 3], alone["norm"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["error_bound"][1, 3], alone["error_bound"], rtol=0.5, atol=0)


def test_entries_with_gradients_may_be_asked_again():
    tiny = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1e-200, 2e-200]], dtype=torch.float64, requires_grad=True)
    found = measure(Convolution(tiny, 5), outputs=("values",))
    torch.testing.assert_close(found.values[1], 1e-200 * found.values[0])
