import math

import pytest
import torch

from statesize.operators import SoftmaxAttention, attention


def test_window_hides_older_keys() -> None:
    flat = SoftmaxAttention(torch.zeros(4, 1), torch.zeros(4, 1), 1.0, window=2)
    assert flat.dense().tolist() == [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]
    assert flat.state_size().tolist() == [0, 1, 1, 1]


def test_large_scores_do_not_overflow() -> None:
    sharp = SoftmaxAttention(torch.full((3, 1), 1e3), torch.arange(3.0)[:, None] * 1e3, 1.0)
    assert torch.equal(sharp.dense(), torch.eye(3))


def weights_of(head: SoftmaxAttention, query: torch.Tensor, position: int, keys: int) -> torch.Tensor:
    """What a query at a position gives each of the first keys, term by term."""
    exponentials = torch.zeros(keys, dtype=torch.float64)
    for j in range(keys):
        score = head.scale * float(query @ head.key[j])
        score = score if head.soft_cap is None else head.soft_cap * math.tanh(score / head.soft_cap)
        score += 0 if head.key_bias is None else float(head.key_bias[j])
        if j <= position and (head.window is None or position - j < head.window):
            exponentials[j] = math.exp(score)
    return exponentials / (exponentials.sum() + (0 if head.sink is None else math.exp(float(head.sink))))


@pytest.mark.parametrize("window", [None, 4, 3])
@pytest.mark.parametrize("parts", [("key_bias",), ("sink",), ("soft_cap",), ("key_bias", "sink", "soft_cap")])
def test_weights_are_those_of_the_formula(parts: tuple[str, ...], window: int | None) -> None:
    g = torch.Generator().manual_seed(2)
    query, key, bias, others, sink = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in ((3, 9, 4), (3, 9, 4), (3, 9), (3, 5, 4), (3,))
    )
    extras = {"key_bias": bias, "sink": sink, "soft_cap": 1.5}
    operator = SoftmaxAttention(query, key, 1.3, window, **{name: extras[name] for name in parts})
    rows, close = torch.tensor([8, 0, 4]), {"rtol": 1e-13, "atol": 0}
    for head in range(3):
        one = operator[head]
        expected = torch.stack([weights_of(one, one.query[i], i, 9) for i in range(9)])
        torch.testing.assert_close(operator.dense()[head], expected, **close)
        torch.testing.assert_close(operator.rows(rows)[head], expected[rows], **close)
        if "sink" in parts:
            # Other queries, at position 9, read the first six keys as if there were no more.
            expected = torch.stack([weights_of(one, other, 9, 6) for other in others[head]])
            torch.testing.assert_close(operator.attend(others, 9, 6)[head], expected, **close)
    single = operator.to(torch.float32)
    assert single.dtype == single.dense().dtype == torch.float32
    torch.testing.assert_close(single.dense().double(), operator.dense(), rtol=1e-5, atol=1e-7)


def test_nothing_is_read_where_a_window_hides_all_keys_and_all_where_it_is_longer_than_the_text():
    query, key, others = (torch.randn(length, 3, generator=torch.Generator().manual_seed(0)) for length in (6, 6, 2))
    plain, windowed, short = (SoftmaxAttention(query, key, 1.0, window) for window in (None, 20, 2))
    assert torch.equal(windowed.dense(), plain.dense())
    assert torch.equal(windowed.state_size(), plain.state_size())
    # Twelve positions behind the first key, and behind all six of them.
    assert torch.equal(windowed.attend(others, 12, 6), plain.attend(others, 12, 6))
    assert float(short.attend(others, 12, 6).abs().max()) == 0


@pytest.mark.few(9)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("rows", [slice(0, 11), slice(3, 9), slice(10, 11)])
@pytest.mark.parametrize("columns", [slice(0, 11), slice(0, 3), slice(2, 7), slice(9, 11)])
def test_a_block_of_several_strips_is_that_of_the_whole_matrix(rows, columns, window, monkeypatch):
    monkeypatch.setattr(attention, "_ROWS", 2)
    query, key = torch.randn(2, 1, 11, 4, generator=torch.Generator().manual_seed(0))
    operator = SoftmaxAttention(query, key, scale=0.5, window=window)
    torch.testing.assert_close(operator.block(rows, columns), operator.dense()[..., rows, columns])
    columns_of = slice(columns.start, operator.length), columns
    torch.testing.assert_close(operator.columns(columns.start, columns.stop), operator.dense()[..., *columns_of])
