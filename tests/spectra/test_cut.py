from dataclasses import replace

import pytest
import torch

from statesize.errors import InputError
from statesize.spectra.cut import make_cut


def test_a_count_takes_the_middles_of_equal_parts() -> None:
    assert make_cut(5).positions == (1, 2, 3, 4)
    assert make_cut(13, 3).positions == (3, 7, 11)
    assert make_cut(5, 99).positions == make_cut(5, 4).positions == (1, 2, 3, 4)
    assert make_cut(100, 1).positions == (50,)
    assert make_cut(30, 2, past=10, future=11).positions == (12, 17)


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


@pytest.mark.parametrize(
    ("length", "name", "arguments"),
    [
        (1, "operator", {}),
        *((5, "positions", {"positions": given}) for given in ([0], [5], [2.5], torch.tensor([1.0]), [True], 0)),
        (5, "past", {"past": 0}),
        (5, "past and future", {"future": 5}),
        (5, "past and future", {"past": 3, "future": 3}),
        (9, "positions", {"past": 3, "positions": [2]}),
    ],
)
def test_bad_input_is_refused_by_name(length: int, name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=rf"^{name} must .*got "):
        make_cut(length, **arguments)
