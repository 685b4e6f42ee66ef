"""State bytes of attention that has no cache of transformers: what must be stored, however often it is read."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss

HEADS, GROUPS, CHANNELS, WIDTH, LENGTH = 8, 2, 8, 32, 40
WINDOW = 5


def masked(query, key, value, window=LENGTH):
    seen = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).tril().triu(1 - window)
    return (query @ key.mT * CHANNELS**-0.5).masked_fill(~seen, -torch.inf).softmax(-1) @ value


def with_distances(query, key, value):
    """Scores by content, and by a second product with embeddings of positions that all heads share."""
    length = query.shape[-2]
    places = torch.randn(1, 1, length, CHANNELS, generator=torch.Generator().manual_seed(2))
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    return (query @ key.mT + query @ places.to(query).mT).masked_fill(later, -torch.inf).softmax(-1) @ value


def by_einsum(query, key, value, scored="bhid,bhjd->bhij", mixed="bhij,bhjd->bhid"):
    later = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).triu(1)
    scores = (torch.einsum(scored, query, key) * CHANNELS**-0.5).masked_fill(later, -torch.inf)
    return torch.einsum(mixed, scores.softmax(-1), value)


def by_einsum_of_the_last_two(query, key, value):
    return by_einsum(query, key, value, "...id,...jd->...ij", "...ij,...jd->...id")


def by_einsum_of_one_key(query, key, value):
    return by_einsum(query, key[:, 0], value, "bhid,bjd->bhij")


def by_einsum_with_keys_first(query, key, value):
    later = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).triu(1)
    scores = torch.einsum("bjhd, bihd -> bhij", key.transpose(1, 2), query.transpose(1, 2)) * CHANNELS**-0.5
    return torch.einsum("bjhd, bhij -> bhid", value.transpose(1, 2), scores.masked_fill(later, -torch.inf).softmax(-1))


def by_einsum_and_product(query, key, value):
    later = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).triu(1)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) * CHANNELS**-0.5
    return torch.linalg.matmul(scores.masked_fill(later, -torch.inf).softmax(-1), value)


def fused(query, key, value):
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def interleaved(part):
    return part.repeat_interleave(HEADS // GROUPS, 1)


def tiled(part):
    return part.repeat(1, HEADS // GROUPS, 1, 1)


def as_it_is(part):
    return part


class Grouped(nn.Module):
    """Attention with fewer keys and values than queries."""

    def __init__(self, attend, copied, groups=(GROUPS, GROUPS)):
        super().__init__()
        self.attend, self.copied, self.groups = attend, copied, groups
        self.query = nn.Linear(WIDTH, HEADS * CHANNELS)
        self.keys, self.values = (nn.Linear(WIDTH, count * CHANNELS) for count in groups)
        self.output = nn.Linear(HEADS * CHANNELS, WIDTH)

    def forward(self, hidden):
        query = self.query(hidden).unflatten(-1, (HEADS, CHANNELS)).transpose(1, 2)
        key, value = (
            self.copied(part(hidden).unflatten(-1, (count, CHANNELS)).transpose(1, 2))
            for part, count in zip((self.keys, self.values), self.groups, strict=True)
        )
        return self.output(self.attend(query, key, value).transpose(1, 2).flatten(2))


def captured(layer, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, WIDTH), layer).to(dtype)
    ids = torch.randint(64, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    (item,) = ss.capture(model, ids)
    return item


def state_bytes(layer, dtype=torch.float32):
    return captured(layer, dtype).state_bytes


@pytest.mark.few(6)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("copied", [interleaved, tiled], ids=["interleaved", "tiled"])
@pytest.mark.parametrize("attend", [masked, with_distances, by_einsum, fused])
def test_copies_for_further_queries_are_not_stored(attend, copied, dtype):
    assert state_bytes(Grouped(attend, copied), dtype) == 2 * GROUPS * CHANNELS * LENGTH * dtype.itemsize


EINSUMS = [
    by_einsum,
    by_einsum_of_the_last_two,
    by_einsum_of_one_key,
    by_einsum_with_keys_first,
    by_einsum_and_product,
]


@pytest.mark.parametrize("attend", [masked, *EINSUMS])
def test_keys_and_values_are_counted_apart(attend):
    """However their products are written."""
    layer = Grouped(lambda query, key, value: attend(query, tiled_to(key), tiled_to(value)), as_it_is, (1, 4))
    item = captured(layer)
    assert item.state_bytes == (1 + 4) * CHANNELS * LENGTH * 4


def tiled_to(part):
    return part.repeat(1, HEADS // part.shape[1], 1, 1)


def test_a_mask_bounds_what_is_stored():
    layer = Grouped(lambda query, key, value: masked(query, key, value, WINDOW), interleaved)
    assert state_bytes(layer) == 2 * GROUPS * CHANNELS * (WINDOW - 1) * 4


def test_what_is_zero_does_not_look_like_copies():
    layer = Grouped(masked, as_it_is, (HEADS, HEADS))
    for part in (layer.values, layer.keys):
        nn.init.zeros_(part.bias)
    nn.init.zeros_(layer.keys.weight)
    assert state_bytes(layer) == 2 * HEADS * CHANNELS * LENGTH * 4
