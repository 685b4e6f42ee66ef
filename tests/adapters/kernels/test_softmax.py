"""Attention that a trace reads, of transformers without its registry and of one's own, against its own numbers."""

import pytest
import torch
from oracles.attention_models import token_ids
from torch import nn

from statesize import capture, profile


@pytest.mark.parametrize("formula", ["bhij,bjd->bhid", "bhij,bjd->bihd", "product"])
def test_multi_query_attention_of_a_module_of_one_s_own(formula):
    class MultiQuery(nn.Module):
        def __init__(self):
            super().__init__()
            self.projection = nn.Linear(8, 16)

        def forward(self, hidden):
            query, key, value = self.projection(hidden).split([8, 4, 4], -1)
            scores = query.unflatten(-1, (2, 4)).transpose(1, 2) @ key[:, None].mT
            maps = torch.softmax(scores.masked_fill(torch.ones(21, 21).triu(1) > 0, -torch.inf), -1)
            if formula == "product":
                return (maps @ value[:, None]).transpose(1, 2).flatten(2)
            mixed = torch.einsum(formula, maps, value)
            return (mixed if formula.endswith("bihd") else mixed.transpose(1, 2)).flatten(2)

    torch.manual_seed(0)
    (item,) = capture(nn.Sequential(nn.Embedding(64, 8), MultiQuery()), token_ids())
    assert (item.kind, item.units, item.groups, item.multiplicity) == ("attention", 2, 1, 4)
    assert item.faithfulness < 1e-5
    torch.testing.assert_close(item.operator.dense().sum(-1), torch.ones(2, 2, 21, dtype=torch.float64))


def test_a_map_is_known_again_as_a_copy():
    class Copied(nn.Module):
        def forward(self, hidden):
            heads = hidden.unflatten(-1, (2, 4)).transpose(1, 2)
            scores = (heads @ heads.mT).masked_fill(torch.ones(21, 21).triu(1).bool(), -torch.inf)
            # In float64, as some do for stability; what multiplies the values is a copy of it.
            weights = torch.softmax(scores, -1, dtype=torch.float64).to(heads.dtype)
            return (weights @ heads).transpose(1, 2).flatten(2)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 8), Copied())
    (item,) = capture(model, token_ids())
    assert (item.name, item.kind, item.units, item.multiplicity) == ("1", "attention", 2, 4)
    assert item.faithfulness < 1e-5


class HeadsFirst(nn.Module):
    """Attention whose maps are (sequence × head, L, L); it takes positions of all texts, or one text, in some order."""

    heads = 4

    def __init__(self, arranged):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.arranged = arranged

    def forward(self, first, second=None):
        hidden = first if second is None else second
        texts = {
            "position first": lambda: hidden.transpose(0, 1),
            "rows": lambda: hidden.unflatten(0, (first, -1)),
            "one text": lambda: hidden[None],
        }.get(self.arranged, lambda: hidden)()
        parts = (part(texts).unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1) for part in self.projections)
        query, key, value = parts
        scores = torch.bmm(query, key.mT)
        scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf)
        self.maps = torch.softmax(scores, -1)
        mixed = torch.bmm(self.maps, value).unflatten(0, (len(texts), -1)).transpose(1, 2).flatten(2)
        return {
            "position first": lambda: mixed.transpose(0, 1),
            "rows": lambda: mixed.flatten(0, 1),
            "one text": lambda: mixed[0],
        }.get(self.arranged, lambda: mixed)()


class AroundHeadsFirst(nn.Module):
    def __init__(self, arranged):
        super().__init__()
        self.embedding, self.layer, self.arranged = nn.Embedding(64, 8), HeadsFirst(arranged), arranged

    def forward(self, ids):
        hidden, length = self.embedding(ids), ids.shape[1]
        return {
            "position first": lambda: self.layer(hidden.transpose(0, 1)).transpose(0, 1),
            "positions beside": lambda: self.layer(torch.arange(float(length)), hidden),
            "mask beside": lambda: self.layer(torch.ones(length, length).tril(), hidden),
            "rows": lambda: self.layer(len(ids), hidden.flatten(0, 1)).unflatten(0, ids.shape),
            "one text": lambda: torch.stack([self.layer(text) for text in hidden]),
        }[self.arranged]()


@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize("arranged", ["position first", "positions beside", "mask beside", "rows", "one text"])
def test_heads_are_told_from_texts_in_maps_that_have_one_dimension_for_both(arranged, texts):
    torch.manual_seed(0)
    model, ids = AroundHeadsFirst(arranged), token_ids()[:texts]
    items = list(capture(model, ids))
    calls, each = (texts, 1) if arranged == "one text" else (1, texts)
    assert [tuple(item.operator.batch_shape) for item in items] == [(each, 4)] * calls
    # The layer holds the maps of its last call.
    maps = model.layer.maps.unflatten(0, (each, 4)) if model(ids) is not None else None
    torch.testing.assert_close(items[-1].operator.dense().float(), maps, rtol=0, atol=1e-6)
    assert len(profile(model, ids).ess("layer").columns) > 0
