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


def explicit(attention: SoftmaxAttention) -> torch.Tensor:
    """T of one head by loops over its rows."""
    T = torch.zeros(attention.length, attention.length, dtype=torch.float64)
    for i in range(attention.length):
        first = 0 if attention.window is None else max(0, i + 1 - attention.window)
        scores = [attention.scale * float(attention.query[i] @ attention.key[j]) for j in range(first, i + 1)]
        if attention.soft_cap is not None:
            scores = [attention.soft_cap * math.tanh(score / attention.soft_cap) for score in scores]
        if attention.key_bias is not None:
            scores = [score + float(attention.key_bias[first + n]) for n, score in enumerate(scores)]
        total = sum(math.exp(score) for score in scores)
        total += 0 if attention.sink is None else math.exp(float(attention.sink))
        T[i, first : i + 1] = torch.tensor([math.exp(score) / total for score in scores], dtype=torch.float64)
    return T


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("parts", [("key_bias",), ("sink",), ("soft_cap",), ("key_bias", "sink", "soft_cap")])
def test_bias_sink_and_cap_are_those_of_the_formula(parts: tuple[str, ...], window: int | None) -> None:
    query, key, bias, sink = drawn((3, 9, 4), (3, 9, 4), (3, 9), (3,))
    extras = {"key_bias": bias, "sink": sink, "soft_cap": 1.5}
    attention = SoftmaxAttention(query, key, 1.3, window, **{name: extras[name] for name in parts})
    for head in range(3):
        expected = explicit(attention[head])
        torch.testing.assert_close(attention.dense()[head], expected, rtol=1e-13, atol=0)
        rows = torch.tensor([8, 0, 4])
        torch.testing.assert_close(attention.rows(rows)[head], expected[rows], rtol=1e-13, atol=0)
    single = attention.to(torch.float32)
    assert single.dtype == single.dense().dtype == torch.float32
    torch.testing.assert_close(single.dense().double(), attention.dense(), rtol=1e-5, atol=1e-7)


def drawn(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("window", [None, 4, 2])
def test_other_queries_read_the_first_keys_as_if_there_were_no_more(window):
    generator = torch.Generator().manual_seed(5)
    query, key = (torch.randn(2, 6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    bias, sink = torch.randn(2, 6, generator=generator, dtype=torch.float64), torch.tensor([0.3, -1.0]).double()
    operator = SoftmaxAttention(query, key, 0.7, window, key_bias=bias, sink=sink, soft_cap=2.0)
    others = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    read = operator.attend(others, 6, 4)
    for head in range(2):
        for row in range(5):
            seen = [j for j in range(4) if window is None or 6 - j < window]
            scores = {j: 2 * torch.tanh(0.7 * others[head, row] @ key[head, j] / 2) + bias[head, j] for j in seen}
            total = sink[head].exp() + sum(score.exp() for score in scores.values())
            expected = torch.stack([scores[j].exp() / total if j in seen else total * 0 for j in range(4)])
            torch.testing.assert_close(read[head, row], expected)
    assert float(SoftmaxAttention(query, key, 0.7, 2).attend(others, 6, 4).abs().max()) == 0


def test_a_window_longer_than_the_text_hides_nothing_from_behind_it():
    query, key, others = (torch.randn(length, 3, generator=torch.Generator().manual_seed(0)) for length in (6, 6, 2))
    plain, windowed = (SoftmaxAttention(query, key, 1.0, window) for window in (None, 20))
    assert torch.equal(windowed.dense(), plain.dense())
    assert torch.equal(windowed.state_size(), plain.state_size())
    # Twelve positions behind the first key, and behind all six of them.
    assert torch.equal(windowed.attend(others, 12, 6), plain.attend(others, 12, 6))


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
