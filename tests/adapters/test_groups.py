"""Which heads read the same stored input: key-value heads, latents, and values that a model repeated itself."""

import pytest
import torch
from oracles.attention_models import attention_model, token_ids
from oracles.tiny_families import tiny
from oracles.tiny_families import token_ids as tiny_ids
from torch import nn

import statesize as ss
from statesize import capture
from statesize.adapters.models.own_cache import UNEVEN, attention_cache, grouped_by


@pytest.mark.parametrize(
    ("family", "changes", "groups", "channels"),
    [
        ("llama", {}, 2, 8),
        ("llama", {"num_key_value_heads": 1}, 1, 8),
        ("llama", {"num_key_value_heads": 4}, 0, 8),
        ("mistral", {}, 2, 8),
        ("deepseek_v3", {}, 1, 8),
        # It computes attention by itself, of values that all heads share.
        ("falcon", {}, 1, 8),
        ("bloom", {}, 0, 8),
    ],
)
def test_groups_of_families(family, changes, groups, channels):
    for item in capture(attention_model(family, **changes), token_ids()):
        assert (item.units, item.groups, item.stored_channels) == (4, groups, channels)
        shared, matrix = item.group, item.operator.dense()
        if not groups:
            assert shared is None
            assert item.by_group() is None
            continue
        readouts = 4 // groups
        assert (shared.batch_shape, shared.outputs) == ((2, groups), readouts)
        for group in range(groups):
            for readout in range(readouts):
                expected = matrix[:, group * readouts + readout]
                assert torch.equal(shared.dense()[:, group, :, readout], expected)
        assert torch.equal(shared.state_size(), item.operator.state_size())


def test_some_groups():
    (item,) = capture(attention_model("llama"), token_ids(), 0)
    together, groups = item.by_group(), item.group.dense()
    assert (together.name, together.units, together.multiplicity) == (f"{item.name}#shared", 2, 8)
    assert torch.equal(together.units_operator(torch.tensor([1])).dense(), groups[:, 1:])
    assert torch.equal(together.units_operator(slice(0, 1)).dense(), groups[:, :1])


HEADS, CHANNELS, LENGTH = 4, 4, 21
AT = torch.arange(LENGTH)
LATER = AT[:, None] < AT
PLACES = torch.randn(1, 1, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(2))
# Bytes of keys and values of two heads, in float32.
STORED = 2 * 2 * CHANNELS * LENGTH * 4


def by_scores(scores):
    return lambda query, key, value: scores(query, key).masked_fill(LATER, -torch.inf).softmax(-1) @ value


def by_einsum(query, key, value, scored="bhid,bhjd->bhij", mixed="bhij,bhjd->bhid"):
    scores = (torch.einsum(scored, query, key) / 2).masked_fill(LATER, -torch.inf)
    return torch.einsum(mixed, scores.softmax(-1), value)


def by_einsum_with_keys_first(query, key, value):
    scores = torch.einsum("bjhd, bihd -> bhij", key.transpose(1, 2), query.transpose(1, 2)) / 2
    return torch.einsum("bjhd, bhij -> bhid", value.transpose(1, 2), scores.masked_fill(LATER, -torch.inf).softmax(-1))


ATTENTION = {
    "fused": lambda query, key, value: nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True),
    "scores": by_scores(lambda query, key: query @ key.mT / 2),
    # Scores by more than content: of distances, and of embeddings of positions that all heads share.
    "distances": by_scores(lambda query, key: query @ key.mT - 0.1 * (AT[:, None] - AT).abs().sqrt()),
    "places": by_scores(lambda query, key: query @ key.mT + query @ PLACES.to(query).mT),
    "einsum": by_einsum,
    "einsum of one key": lambda query, key, value: by_einsum(query, key[:, 0], value, "bhid,bjd->bhij"),
    "einsum with keys first": by_einsum_with_keys_first,
    "no softmax": lambda query, key, value: torch.sigmoid(query @ key.mT).tril() @ value,
    "a state": lambda query, key, value: (query @ key.mT).tril() @ value,
}


class Grouped(nn.Module):
    """Query heads that read heads of keys and values, of which there may be fewer."""

    def __init__(self, attend, keys, values, queries=(0, 1, 2, 3)):
        super().__init__()
        self.attend, self.keys, self.values, self.queries = attend, [*keys], [*values], [*queries]
        self.counts = [HEADS, max(keys) + 1, max(values) + 1]
        self.projections, self.output = nn.Linear(8, CHANNELS * sum(self.counts)), nn.Linear(HEADS * CHANNELS, 8)

    def forward(self, hidden):
        parts = self.projections(hidden).unflatten(-1, (-1, CHANNELS)).transpose(1, 2)
        query, key, value = parts.split(self.counts, 1)
        mixed = self.attend(query[:, self.queries], key[:, self.keys], value[:, self.values])
        return self.output(mixed.transpose(1, 2).flatten(2))


def grouped(attend, keys, values, *queries):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(64, 8), Grouped(ATTENTION[attend], keys, values, *queries))


@pytest.mark.parametrize(
    ("attend", "stored"),
    [
        *((attend, STORED) for attend in ("fused", "scores", "distances", "places", "einsum")),
        ("no softmax", None),
        ("a state", 2 * CHANNELS * CHANNELS * 4),
    ],
)
def test_heads_that_read_one_input_need_not_be_neighbours_and_store_it_once(attend, stored):
    pairs, in_turn = (0, 0, 1, 1), (0, 1, 0, 1)
    models = grouped(attend, pairs, pairs), grouped(attend, in_turn, in_turn, (0, 2, 1, 3))
    (neighbours,), (tiled,) = (capture(model, token_ids()) for model in models)
    assert (neighbours.groups, neighbours.order, neighbours.state_bytes) == (2, (), stored)
    assert (tiled.groups, tiled.order, tiled.state_bytes) == (2, (0, 2, 1, 3), stored)
    assert neighbours.state_size == tiled.state_size == (4 if attend == "a state" else None)
    torch.testing.assert_close(tiled.group.dense(), neighbours.group.dense(), rtol=0, atol=1e-7)
    expected = neighbours.operator.dense()[:, [0, 2, 1, 3]]
    torch.testing.assert_close(tiled.operator.dense(), expected, rtol=0, atol=1e-7)
    joint = float(ss.measure(neighbours.group).entropy.mean())
    for model in models:
        row = ss.profile(model, token_ids(), positions="all").summary_rows()[0]
        assert row["joint_entropy"] == pytest.approx(joint, rel=1e-5)
        # Each of two stored heads has four channels; summed over all 16, what two heads read would count twice.
        assert row["total_entropy"] == pytest.approx(2 * CHANNELS * joint, rel=1e-5)
        assert row["average_entropy"] < joint < 2 * row["average_entropy"]


@pytest.mark.parametrize("attend", ["fused", "distances", "no softmax", "a state"])
def test_a_note_says_that_heads_share_an_input_in_no_groups(attend):
    for reads, is_uneven in (((0, 0, 1, 0), True), ((0, 1, 0, 1), False)):
        (item,) = capture(grouped(attend, reads, reads, (0, 2, 1, 3)), token_ids())
        assert (UNEVEN in item.notes) == is_uneven
        assert (item.groups == 0) == is_uneven


@pytest.mark.parametrize("attend", ["scores", "einsum", "einsum of one key", "einsum with keys first"])
def test_keys_and_values_are_counted_apart_however_their_products_are_written(attend):
    for dtype in (torch.float32, torch.bfloat16):
        (item,) = capture(grouped(attend, (0, 0, 0, 0), (0, 0, 1, 1)).to(dtype), token_ids())
        assert item.state_bytes == (1 + 2) * CHANNELS * LENGTH * dtype.itemsize


def test_what_is_zero_does_not_look_like_copies():
    model = grouped("scores", range(4), range(4))
    with torch.no_grad():
        keys = slice(HEADS * CHANNELS, 2 * HEADS * CHANNELS)
        model[1].projections.weight[keys] = model[1].projections.bias[HEADS * CHANNELS :] = 0
    (item,) = capture(model, token_ids())
    assert item.state_bytes == 2 * HEADS * CHANNELS * LENGTH * 4


def test_the_order_of_heads_of_stored_heads():
    assert grouped_by("abab") == (2, (0, 2, 1, 3))
    assert grouped_by("aabb") == (2, ())
    assert grouped_by("abcd") == (4, ())
    assert grouped_by("aabbaa") == (3, ())
    assert grouped_by("aab") == (3, ())
    # Each of four heads of values, two of them copies, serves two query heads.
    values = torch.arange(2.0).repeat(2)[None, :, None, None].expand(1, 4, 3, 5)
    cache = attention_cache(nn.Identity(), (values,), values, 8, None)
    assert (cache.groups, cache.order) == (2, (0, 1, 4, 5, 2, 3, 6, 7))
    # Four heads of their own.
    values = torch.arange(4.0)[None, :, None, None].expand(1, 4, 3, 5)
    cache = attention_cache(nn.Identity(), (values,), values, 4, None)
    assert (cache.groups, cache.order) == (0, ())


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text"])
def test_layers_that_share_a_cache(family):
    model, ids = tiny(family), tiny_ids()
    items = list(capture(model, ids))
    # The third and fourth of four layers read the caches of the first two, one of which has a window.
    names = [item.name for item in items]
    assert [item.cache for item in items] == [names[2], names[3], "", ""]
    for own, reader in ((0, 2), (1, 3)):
        assert items[own].group is None
        shared = items[reader].group
        assert items[reader].groups == 1  # one key for all heads
        pair = torch.stack([items[which].operator.dense() for which in (own, reader)], 1)
        sequences, _, heads, length, _ = pair.shape
        expected = pair.reshape(sequences, 2, items[reader].groups, -1, length, length).transpose(1, 2).flatten(2, 3)
        assert torch.equal(shared.operator.dense(), expected)
        assert shared.outputs == 2 * heads // items[reader].groups
        assert torch.equal(shared.state_size(), items[own].operator.state_size())
        assert items[own].state_bytes > items[reader].state_bytes == 0
    rows = ss.profile(model, ids, positions="all").summary_rows()
    assert [row["total_entropy"] > 0 for row in rows] == [False, False, True, True]
    for row, item in zip(rows[2:], items[2:], strict=True):
        assert row["joint_entropy"] == pytest.approx(float(ss.measure(item.group).entropy.mean()), rel=1e-5)
    # A layer that is captured alone has only its own heads.
    (alone,) = capture(model, ids, names[2])
    assert (alone.cache, alone.readers) == ("", ())
