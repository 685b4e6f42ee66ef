from dataclasses import replace

import pytest
import torch

from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.operators.attention import SoftmaxAttention
from statesize.spectra.cut import make_cut


def test_all_positions_by_default() -> None:
    assert make_cut(5).positions == (1, 2, 3, 4)


def test_a_count_takes_the_middles_of_equal_parts() -> None:
    assert make_cut(13, 3).positions == (3, 7, 11)
    assert make_cut(5, 99).positions == make_cut(5, 4).positions == (1, 2, 3, 4)
    assert make_cut(100, 1).positions == (50,)
    assert make_cut(30, 2, past=10, future=11).positions == (12, 17)


@pytest.mark.parametrize("count", [3, 8, 20, 38])
def test_a_mean_over_a_count_is_that_over_all(count: int) -> None:
    # A state of 10 numbers is full but at both ends, which may not count more than what lies between them.
    every, some = (make_cut(40, positions).limits.clamp(max=10).double().mean() for positions in (None, count))
    assert some.item() == pytest.approx(every.item(), rel=0.05)


@pytest.mark.parametrize("past", [None, 1, 4])
@pytest.mark.parametrize("future", [None, 1, 3])
@pytest.mark.parametrize("readouts", [1, 2])
def test_a_block_has_the_entries_of_its_definition(past: int | None, future: int | None, readouts: int) -> None:
    length, cut = 9, replace(make_cut(9, None, past, future), readouts=readouts)
    T = torch.arange(float(readouts * length * length)).reshape(readouts * length, length)
    for i, limit in zip(cut.positions, cut.limits.tolist(), strict=True):
        rows, columns = list[int](), list[int]()
        for position in range(length):
            if i <= position and (future is None or position < i + future):
                rows += range(readouts * position, readouts * position + readouts)
            if position < i and (past is None or position >= i - past):
                columns.append(position)
        after, before = cut.reach(i)
        block = T.unflatten(0, (length, readouts))[after, :, before].flatten(0, 1)
        assert block.tolist() == [[float(T[row, column]) for column in columns] for row in rows]
        assert (cut.shape(i), limit) == ((len(rows), len(columns)), min(len(rows), len(columns)))


def test_windows_that_reach_the_ends_cut_nothing_off() -> None:
    assert not make_cut(10, [6], past=6, future=4).windowed
    assert not make_cut(10, [6], future=4).windowed
    assert make_cut(10, [5, 6], future=4).windowed
    assert make_cut(10, [6], past=5).windowed


def test_a_future_of_the_rest_of_the_text_is_open_to_engines_without_windows() -> None:
    g = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 2, 40, 4, generator=g, dtype=torch.float64)
    attention = SoftmaxAttention(queries, keys, scale=0.5)
    found = measure(attention, positions=[24], future=16, engine="implicit", outputs=("entropy",))
    expected = measure(attention, positions=[24], future=16, engine="dense", outputs=("entropy",))
    assert found.future == 16
    assert bool(((found.entropy - expected.entropy).abs() <= found.entropy_bound + expected.entropy_bound).all())


@pytest.mark.parametrize(
    ("length", "arguments", "message"),
    [
        (1, {}, "operator must have a length of at least 2, a past and a future, got 1"),
        (5, {"positions": [0]}, r"integers in 1 … 4 here, got 0"),
        (5, {"positions": [5]}, "got 5"),
        (5, {"positions": [2.5]}, "got 2.5"),
        (5, {"positions": torch.tensor([1.0])}, "got tensor"),
        (5, {"positions": [True]}, "got True"),
        (5, {"positions": 0}, "got 0"),
        (5, {"past": 0}, "past must be a whole number of at least 1, got 0"),
        (5, {"future": 5}, "past and future must fit into the length 5, got None and 5"),
        (5, {"past": 3, "future": 3}, "past and future must fit into the length 5, got 3 and 3"),
        (9, {"past": 3, "positions": [2]}, "integers in 3 … 8 here, got 2"),
    ],
)
def test_bad_input_is_quoted(length: int, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_cut(length, **arguments)
