"""Which engine is asked, how much of it at once, and what does not fit into memory."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.operators import random_recurrence

from statesize.errors import EngineError, InputError
from statesize.io.machine import free_bytes
from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Dense, Recurrence, SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES, Question, choose_engine, dispatch, require_memory
from statesize.spectra.engine import Engine, Footprint


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


@pytest.mark.parametrize(
    ("cut", "outputs", "name", "message"),
    [
        (make_cut(5), ("values",), "small_state", r"works on real diagonal .*, not on this Convolution; .*: exact"),
        (make_cut(5, future=2), ("counts",), "all_cuts", r"does not cut blocks by past and future; .*: exact, dense"),
        *(
            (make_cut(5), ("values",), one, r"^engine must be one of auto, ")
            for one in ("fast", [], np.array(["dense"]))
        ),
    ],
)
def test_an_engine_that_cannot_is_refused_with_those_that_can(cut, outputs, name, message) -> None:
    with pytest.raises(EngineError, match=message):
        choose_engine(Convolution(torch.ones(2), 5), cut, outputs, name)


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


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("each", "memory", "parts"), [(2**24, 2**27, [2, 2]), (2**21, 2**27, [4]), (2**24, 2**25, [1] * 4)]
)
def test_a_thread_of_its_own_for_much_work(each, memory, parts, two_threads):
    operator, cut, seen = random_recurrence("diagonal", 0, 6, 2, batch=(4,)), make_cut(6, [3]), []
    found, _ = dispatch(operator, Noting("exact", seen, lambda count: each, 2**20), question(cut, memory))
    assert [shape[0] for shape, _ in seen] == parts
    assert found["norm"].shape == (4, 1)


@pytest.mark.parametrize("engine", ["exact", "all_cuts", "dense"])
def test_heads_spread_over_threads_give_the_same(engine, two_threads):
    heads = random_recurrence("diagonal", 0, 96, 48, (2, 8))
    (found, used), (alone, _) = (
        dispatch(one, ENGINES[engine], question(make_cut(96, 12), worth_a_thread=1)) for one in (heads, heads[1, 3])
    )
    assert used == engine
    torch.testing.assert_close(found["norm"][1, 3], alone["norm"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["error_bound"][1, 3], alone["error_bound"], rtol=0.5, atol=0)


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
    # Also where gradients flow.
    tiny = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1e-200, 2e-200]], dtype=torch.float64, requires_grad=True)
    values = measure(Convolution(tiny, 5), outputs=("values",)).values
    torch.testing.assert_close(values[1], 1e-200 * values[0])


def test_the_position_that_overflows_is_named():
    B, C = (torch.full((64, 2), size, dtype=torch.float64) for size in (1.0, 1e200))
    B[3] = 1e200
    operator = Recurrence(torch.ones(64, 1, dtype=torch.float64), B, C)
    with pytest.raises(InputError, match="at position 4"):
        dispatch(operator, ENGINES["exact"], question(make_cut(64, [2, 4])))
    two = Recurrence(operator.A[None, None], torch.stack([torch.ones_like(B), B])[None], C[None, None])
    with pytest.raises(InputError, match=r"entry \(0, 1\), position 5"):
        dispatch(two, ENGINES["exact"], question(make_cut(64, [2, 5])))


told = pytest.mark.skipif(free_bytes(torch.device("cpu")) is None, reason="the system does not tell what is free")


def attention():
    query = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return SoftmaxAttention(query, query, 1.0)


@told
@pytest.mark.parametrize("engine", ["dense", "all_cuts"])
def test_what_does_not_fit_is_refused_before_it_is_allocated(engine):
    operator = attention()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match="would hold"):
        measure(operator, positions=4, engine=engine)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@told
def test_what_just_fits_is_not_refused():
    operator, cut = attention(), make_cut(400_000, [200_000])
    needed = ENGINES["dense"].footprint(operator, cut).each
    require_memory(operator, ENGINES["dense"], cut, free=needed)
    for free, instead in ((needed - 1, "engines hold less: implicit"), (1000, "or windows by past and future")):
        with pytest.raises(EngineError, match=f"{instead}$"):
            require_memory(operator, ENGINES["dense"], cut, free=free)
    # Not worth asking the system for.
    require_memory(operator, ENGINES["dense"], make_cut(1000), free=0)


def test_what_is_free_is_that_of_the_system_or_of_its_group(tmp_path):
    cpu = torch.device("cpu")

    def free(device=cpu, **files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text, encoding="ascii")
        return free_bytes(device, tmp_path / "meminfo", tmp_path)

    assert free() is None
    assert free(meminfo="MemTotal: 9000 kB\nMemAvailable:   2000 kB\nBuffers: 1 kB\n") == 2000 * 1024
    assert free(memory_max="max\n") == 2000 * 1024
    assert free(memory_max="1000000\n") == 1_000_000
    assert free(memory_current="400000\n") == 600_000
    assert free(memory_current="1400000\n") == 0
    assert free(memory_max="9000000\n", memory_current="1\n") == 2000 * 1024
    assert free(meminfo="MemTotal: 9000 kB\n") is None
    assert free(torch.device("meta")) is None
