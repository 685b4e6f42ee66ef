import pytest
import torch

from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.operators.attention import SoftmaxAttention
from statesize.spectra.cut import make_cut
from statesize.testing.comparison import block_by_hand


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
    every, some = (make_cut(40, positions).limits().clamp(max=10).double().mean() for positions in (None, count))
    assert some.item() == pytest.approx(every.item(), rel=0.05)


def test_lists_and_tensors_are_themselves() -> None:
    assert make_cut(9, [8, 1]).positions == (8, 1)
    assert make_cut(9, torch.tensor([3, 4])).positions == (3, 4)
    assert make_cut(9, []).positions == ()


def test_windows_keep_the_positions_where_they_fit() -> None:
    cut = make_cut(10, past=3, future=2)
    assert cut.positions == (3, 4, 5, 6, 7, 8)
    matrix = torch.arange(100.0).reshape(10, 10)
    for block in (cut.block(matrix, 3), block_by_hand(matrix, cut, 3)):
        assert block.tolist() == [[30, 31, 32], [40, 41, 42]]
    assert cut.largest_rank() == 2


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


def test_definition_is_everything_before_and_after() -> None:
    block = make_cut(4).block(torch.arange(16.0).reshape(4, 4), 3)
    assert block.tolist() == [[12, 13, 14]]


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
        (5, {"past": 0}, "past must be None or in 1 … 4"),
        (5, {"future": 5}, "future must be None or in 1 … 4"),
        (5, {"past": 3, "future": 3}, "past and future must sum to at most the length 5, got 3 and 3"),
        (9, {"past": 3, "positions": [2]}, "integers in 3 … 8 here, got 2"),
    ],
)
def test_bad_input_is_quoted(length: int, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_cut(length, **arguments)
