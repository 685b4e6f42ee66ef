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
    together = item.by_group()
    assert (together.name, together.units, together.multiplicity) == (f"{item.name}#shared", 2, 8)
    chosen = together.units_operator(torch.tensor([1]))
    assert torch.equal(chosen.dense(), item.group.dense()[:, 1:])
    assert torch.equal(together.units_operator(slice(0, 1)).dense(), item.group.dense()[:, :1])


def fused(query, key, value):
    return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def by_distance(query, key, value):
    """No softmax of products of queries and keys alone."""
    at = torch.arange(query.shape[2])
    scores = query @ key.mT - 0.1 * (at[:, None] - at).abs().sqrt()
    return scores.masked_fill(at[:, None] < at, -torch.inf).softmax(-1) @ value


def without_softmax(query, key, value):
    return torch.sigmoid(query @ key.mT).tril() @ value


def with_a_state(query, key, value):
    return (query @ key.mT).tril() @ value


class Shared(nn.Module):
    """Four query heads, which read two heads of keys and values, in turn or in pairs; and some read none of these."""

    def __init__(self, attend, tiles, reads=None):
        super().__init__()
        self.projections, self.attend = nn.Linear(8, 32), attend
        self.reads = reads or ([0, 1, 0, 1] if tiles else [0, 0, 1, 1])
        self.heads = [0, 2, 1, 3] if tiles else [0, 1, 2, 3]

    def forward(self, hidden):
        query, key, value = self.projections(hidden).unflatten(-1, (8, 4)).transpose(1, 2).split([4, 2, 2], 1)
        return self.attend(query[:, self.heads], key[:, self.reads], value[:, self.reads]).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("attend", [fused, by_distance, without_softmax, with_a_state])
def test_heads_that_read_one_input_need_not_be_neighbours(attend):
    models = []
    for tiles in (False, True):
        torch.manual_seed(0)
        models.append(nn.Sequential(nn.Embedding(64, 8), Shared(attend, tiles)))
    (pairs,), (tiled,) = (capture(model, token_ids()) for model in models)
    assert (pairs.groups, pairs.order) == (2, ())
    assert pairs.state_size == tiled.state_size == (4 if attend is with_a_state else None)
    assert (tiled.groups, tiled.order, tiled.state_bytes) == (2, (0, 2, 1, 3), pairs.state_bytes)
    torch.testing.assert_close(tiled.group.dense(), pairs.group.dense(), rtol=0, atol=1e-7)
    torch.testing.assert_close(tiled.operator.dense(), pairs.operator.dense()[:, [0, 2, 1, 3]], rtol=0, atol=1e-7)
    expected, row = (ss.profile(model, token_ids()).summary_rows()[0] for model in models)
    assert row["total_entropy"] == pytest.approx(expected["total_entropy"], rel=1e-5)
    # Summed over all 16 channels, what two heads read would count twice.
    assert row["total_entropy"] < 16 * row["average_entropy"]
    assert row["joint_entropy"] == pytest.approx(expected["joint_entropy"], rel=1e-5)


@pytest.mark.parametrize("attend", [fused, by_distance, without_softmax, with_a_state])
def test_a_note_says_that_heads_share_an_input_in_no_groups(attend):
    torch.manual_seed(0)
    uneven, even = (nn.Sequential(nn.Embedding(64, 8), Shared(attend, True, reads)) for reads in ([0, 0, 1, 0], None))
    (item,) = capture(uneven, token_ids())
    assert (item.groups, item.order) == (0, ())
    assert UNEVEN in item.notes
    (item,) = capture(even, token_ids())
    assert UNEVEN not in item.notes


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


def test_heads_are_measured_together_in_a_profile(tmp_path):
    model, ids = attention_model("llama"), token_ids()
    profile = ss.profile(model, ids, positions="all", output=tmp_path / "profile")
    row, _ = profile.summary_rows()
    for sequence in range(2):
        (item,) = capture(model, ids[sequence : sequence + 1], 0)
        joint = ss.measure(item.group)
        node = profile.group(item.name)
        measured = node["entropy"].values[sequence, :, 1:]
        torch.testing.assert_close(torch.from_numpy(measured), joint.entropy[0].float())
        assert torch.equal(torch.from_numpy(node["ceiling"].values[sequence, 1:]), joint.ceiling.float())
    assert profile.mixers == ("model.layers.0.self_attn", "model.layers.1.self_attn")
    together = row["joint_entropy"]
    assert (row["groups"], row["tss"]) == (2, 20)
    assert row["average_entropy"] < together < 2 * row["average_entropy"]
    # Two key-value heads of eight channels each, and four heads of eight.
    assert row["total_entropy"] == pytest.approx(16 * together)
    (model_row,) = ss.compare([profile]).models
    assert model_row["total_entropy"] == pytest.approx(sum(profile.summary()["total_entropy"]))
    assert ss.Profile.load(tmp_path / "profile").summary().equals(profile.summary())


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
    profile = ss.profile(model, ids, positions="all")
    rows = profile.summary_rows()
    assert [row["total_entropy"] > 0 for row in rows] == [False, False, True, True]
    for reader in (2, 3):
        joint = ss.measure(items[reader].group).entropy.mean()
        assert rows[reader]["joint_entropy"] == pytest.approx(float(joint), rel=1e-5)
    # A layer that is captured alone has only its own heads.
    (alone,) = capture(model, ids, names[2])
    assert (alone.cache, alone.readers) == ("", ())
