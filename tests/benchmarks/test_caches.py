"""Budgets of the heads of softmax attention, and what a head with a budget reads."""

import torch
from torch.nn import functional

from benchmarks.compression.caches import FIRST, LEAST, LENGTH, recent, rounded, shares


def test_budgets_share_a_total_within_their_ends():
    numbers = torch.tensor([1e-3, 30, 60, 1e3], dtype=torch.float64)
    assert shares(numbers, LEAST + 40 + 80 + LENGTH).tolist() == [LEAST, 40, 80, LENGTH]


def test_a_head_reads_its_first_and_last_tokens():
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, LENGTH, 4, generator=g) for _ in range(3))
    whole = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    found = recent(torch.tensor([LENGTH + FIRST, FIRST + 3]))(query, key, value)
    torch.testing.assert_close(found[:, 0], whole[:, 0])
    seen = torch.tensor([0, 1, LENGTH - 3, LENGTH - 2, LENGTH - 1])
    weights = (query[0, 1, -1] @ key[0, 1, seen].mT / 2).softmax(-1)
    torch.testing.assert_close(found[0, 1, -1], weights @ value[0, 1, seen])


def test_rounding_of_many_bits_is_small():
    g = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 8, 4, generator=g) for _ in range(3))
    whole = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    errors = [float((rounded(bits)(query, key, value) - whole).abs().max()) for bits in (4, 8, 16)]
    assert errors[0] > 8 * errors[1] > 64 * errors[2]
