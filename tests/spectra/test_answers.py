"""How much is asked of an engine at once, and which other engines are asked then."""

from dataclasses import replace

import pytest
import torch
from oracles.recurrences import random_recurrence

from statesize.errors import InputError
from statesize.operators import Convolution, Dense, Recurrence
from statesize.spectra.answers import Question, answers
from statesize.spectra.choice import ENGINES
from statesize.spectra.cut import make_cut

PLENTY = 2**40


def noting(name, seen, **changes):
    """An engine that notes the batch shape and the positions of each call."""
    engine = ENGINES[name]

    def blocks(operator, cut):
        seen.append((tuple(operator.batch_shape), list(cut.positions)))
        return engine.blocks(operator, cut)

    return replace(engine, **{"blocks": blocks, "shared": lambda operator, cut: 0, **changes})


def of_positions(size):
    return {"footprint": lambda operator, cut: size(len(cut.positions))}


def question(cut, *, values=False):
    def ask(blocks):
        found = {"norm": blocks.norms(), "error_bound": blocks.error_bound}
        return found | ({"values": blocks.singular_values()} if values else {})

    return Question(cut, ask)


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
    whole, _ = answers(operator, ENGINES["dense"], question(cut, values=True), PLENTY)
    found, used = answers(operator, noting("dense", seen, **of_positions(size)), question(cut, values=True), memory)
    assert [len(positions) for _, positions in seen] == parts
    assert [position for _, positions in seen for position in positions] == list(range(1, 9))
    assert used == "dense"
    assert {name: part.shape for name, part in found.items()} == {name: part.shape for name, part in whole.items()}
    torch.testing.assert_close(found, whole)


def test_parts_of_a_batch_are_joined_by_position():
    operator, cut, seen = random_recurrence("diagonal", 0, 8, 2, batch=(2, 3)), make_cut(8), []
    engine = noting("square_root", seen, **of_positions(lambda count: 10 * count))
    found, _ = answers(operator, engine, question(cut), 50)
    assert [len(positions) for _, positions in seen[::6]] == [3, 4]
    torch.testing.assert_close(
        found["norm"], answers(operator, ENGINES["square_root"], question(cut), PLENTY)[0]["norm"]
    )


@pytest.mark.parametrize(
    ("shared", "portion", "memory", "parts"),
    [(0, PLENTY, 41, [4, 4, 2]), (5, PLENTY, 40, [3, 3, 3, 1]), (0, 20, 40, [2] * 5), (0, PLENTY, 101, [10])],
)
@pytest.mark.parametrize("shape", [(10,), (2, 5), (1, 10), (10, 1)])
def test_entries_that_do_not_fit_are_taken_in_turn(shape, shared, portion, memory, parts):
    operator, cut, seen = random_recurrence("diagonal", 0, 6, 2, batch=shape), make_cut(6, [3]), []
    sizes = {"footprint": lambda operator, cut: 10, "shared": lambda operator, cut: shared, "portion": portion}
    found, _ = answers(operator, noting("square_root", seen, **sizes), question(cut), memory)
    assert [torch.Size(shape).numel() for shape, _ in seen] == parts
    torch.testing.assert_close(
        found["norm"], answers(operator, ENGINES["square_root"], question(cut), PLENTY)[0]["norm"]
    )


@pytest.mark.parametrize(
    ("each", "memory", "parts"), [(2**24, 2**27, [2, 2]), (2**22, 2**27, [4]), (2**24, 2**25, [1] * 4)]
)
def test_a_thread_of_its_own_for_much_work(each, memory, parts):
    operator, cut, seen = random_recurrence("diagonal", 0, 6, 2, batch=(4,)), make_cut(6, [3]), []
    sizes = {"footprint": lambda operator, cut: each, "shared": lambda operator, cut: 2**20}
    torch.set_num_threads(2)
    try:
        found, _ = answers(operator, noting("square_root", seen, **sizes), question(cut), memory)
    finally:
        torch.set_num_threads(1)
    assert [shape[0] for shape, _ in seen] == parts
    assert found["norm"].shape == (4, 1)


@pytest.mark.parametrize(
    ("size", "used"),
    [
        (1e-100, "chunked"),
        (0.99e-100, "chunked, square_root"),
        (0.0, "chunked"),
        (1e100, "chunked"),
        (1.01e100, "chunked, square_root"),
    ],
)
@pytest.mark.parametrize("place", ["B", "C"])
def test_numbers_that_must_not_be_squared_are_asked_of_a_safer_engine(size, used, place):
    base = random_recurrence("full", 0, 6, 2)
    ones = torch.ones(6, 2, dtype=torch.float64)
    ones[2, 1], scaled = -1, torch.full((6, 2), -size, dtype=torch.float64)
    operator = Recurrence(base.A, *((scaled, ones) if place == "B" else (ones, scaled)))
    found, engines = answers(operator, ENGINES["chunked"], question(make_cut(6)), PLENTY)
    assert engines == used
    exact = torch.linalg.matrix_norm(operator.dense()[3:, :3] / (size or 1)) * size
    torch.testing.assert_close(found["norm"][2], exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("size", "used"), [(1e-100, "streaming"), (1e-101, "streaming, dense"), (1e101, "streaming, dense")]
)
def test_the_size_of_a_matrix(size, used):
    matrix = torch.eye(6, dtype=torch.float64).roll(1, 0).tril() * -size
    assert answers(Dense(matrix), ENGINES["streaming"], question(make_cut(6)), PLENTY)[1] == used


def test_the_size_of_a_kernel():
    used = [
        answers(
            Convolution(torch.full((3,), -size, dtype=torch.float64), 6),
            ENGINES["streaming"],
            question(make_cut(6)),
            PLENTY,
        )[1]
        for size in (1e-100, 1e-101)
    ]
    assert used == ["streaming", "streaming, distinct_blocks"]


def test_only_the_entries_that_need_it_are_asked_again():
    operator = random_recurrence("full", 0, 6, 2, batch=(2, 2))
    factor = torch.tensor([[1.0, 1e-120], [1.0, 1e120]], dtype=torch.float64)[..., None, None]
    operator, seen = Recurrence(operator.A, operator.B * factor, operator.C), []
    found, used = answers(operator, noting("chunked", seen), question(make_cut(6)), PLENTY)
    assert (used, seen[0][0]) == ("chunked, square_root", (2, 2))
    norms = torch.stack([torch.linalg.matrix_norm((operator.dense() / factor)[..., i:, :i]) for i in range(1, 6)], -1)
    torch.testing.assert_close(found["norm"], norms * factor.squeeze(-1), rtol=1e-9, atol=0)


def failing(name):
    def blocks(operator, cut):
        raise torch.linalg.LinAlgError("no convergence")

    return replace(ENGINES[name], blocks=blocks)


def test_where_a_decomposition_fails_another_engine_is_asked():
    operator = random_recurrence("full", 0, 6, 2)
    found, used = answers(operator, failing("chunked"), question(make_cut(6)), PLENTY)
    assert used == "square_root"
    assert bool(torch.isfinite(found["norm"]).all())


def test_after_the_definition_there_is_no_other():
    with pytest.raises(InputError, match="did not converge"):
        answers(random_recurrence("full", 0, 6, 2), failing("dense"), question(make_cut(6)), PLENTY)


def test_the_position_that_overflows_is_named():
    B = torch.ones(6, 2, dtype=torch.float64)
    B[3] = 1e200
    operator = Recurrence(torch.ones(6, 1, dtype=torch.float64), B, torch.full((6, 2), 1e200, dtype=torch.float64))
    with pytest.raises(InputError, match=r"^T is not finite at position 4: its entries overflow"):
        answers(operator, ENGINES["square_root"], question(make_cut(6)), PLENTY)
    parts = (part.expand(1, 2, *part.shape).clone() for part in (operator.A, torch.ones_like(B), operator.C))
    two = Recurrence(*parts)
    two.B[0, 1] = B
    with pytest.raises(InputError, match=r"^T is not finite at batch entry \(0, 1\), position 5: its"):
        answers(two, ENGINES["square_root"], question(make_cut(6, [2, 5])), PLENTY)
