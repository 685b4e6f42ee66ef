import torch

from benchmarks.cases import clock, dense_seconds, midpoints, seconds


def test_the_clock_follows_the_threads():
    assert clock() == "processor"
    torch.set_num_threads(2)
    try:
        assert clock() == "wall"
        assert seconds(lambda: None) >= 0
    finally:
        torch.set_num_threads(1)


def test_positions_stand_for_all():
    assert midpoints(5, 8) == [1, 2, 3, 4]
    positions = midpoints(2048, 8)
    assert len(positions) == 8
    assert positions[0] == 128
    # The cost of a decomposition, min² · max, summed over all positions and estimated from eight.
    cost = lambda i: min(i, 2048 - i) ** 2 * max(i, 2048 - i)  # noqa: E731
    total = sum(map(cost, range(1, 2048)))
    assert abs(sum(map(cost, positions)) / 8 * 2047 / total - 1) < 0.01


def test_the_dense_loop_is_scaled():
    calls = []

    class Matrix(torch.Tensor):
        def __getitem__(self, index):
            calls.append(index)
            return super().__getitem__(index)

    matrix = torch.eye(9, dtype=torch.float64).as_subclass(Matrix)
    assert dense_seconds(matrix, [2, 6]) > 0
    assert [rows.start for rows, _ in calls] == [2, 6]
