"""Attention that a trace reads, of transformers without its registry and of one's own, against its own numbers."""

from collections.abc import Callable

import pytest
import torch
from oracles.attention_models import UNREGISTERED, attention_model, token_ids
from torch import Tensor, nn

from statesize import capture, profile

# For each family: attention module, part that makes the values, first value channel of each head in its output (seen
# as a view), part that takes the mixed values.
LAYOUTS: dict[str, tuple[str, str, Callable[[Tensor], Tensor], str]] = {
    "bloom": ("self_attention", "query_key_value", lambda x: x.unflatten(-1, (4, 3, 8))[..., 2, 0], "dense"),
    "falcon": ("self_attention", "query_key_value", lambda x: x.unflatten(-1, (6, 8))[..., 5:, 0], "dense"),
    "gptj": ("attn", "v_proj", lambda x: x.unflatten(-1, (4, 8))[..., 0], "out_proj"),
    "mpt": ("attn", "Wqkv", lambda x: x.unflatten(-1, (3, 4, 8))[..., 2, :, 0], "out_proj"),
    "gpt_neo": ("attn.attention", "v_proj", lambda x: x.unflatten(-1, (4, 8))[..., 0], "out_proj"),
    # Query, value, key, in this order, in four slices.
    "codegen": ("attn", "qkv_proj", lambda x: x.unflatten(-1, (4, 3, 8))[..., 1, 0], "out_proj"),
}


@torch.no_grad()
def impulse_response(family: str, model: nn.Module, layer: nn.Module, ids: Tensor) -> Tensor:
    """T of one layer, (heads, L, L): batch entry j has 1 added to the values of position j, the last one nothing."""
    attention, projection, first_value_channel, output = LAYOUTS[family]
    length, mixed = ids.shape[1], []

    def add_impulses(_, args, values):
        first_value_channel(values)[range(length), range(length)] += 1
        return values

    module = layer.get_submodule(attention)
    with (
        module.get_submodule(projection).register_forward_hook(add_impulses),
        module.get_submodule(output).register_forward_pre_hook(lambda _, args: mixed.append(args[0])),
    ):
        model(ids.expand(length + 1, -1), use_cache=False)
    first = mixed[0].unflatten(-1, (4, 8))[..., 0]
    return (first[:-1] - first[-1:]).permute(2, 1, 0)


@pytest.mark.parametrize("family", UNREGISTERED)
def test_a_family_s_operators_are_the_model_s(family):
    model, ids = attention_model(family), token_ids()
    windows = UNREGISTERED[family][1]
    layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    captured = list(capture(model, ids))
    assert len(captured) == 2
    for item, layer, window in zip(captured, layers, windows, strict=True):
        assert item.kind == ("attention" if window is None else "sliding attention")
        assert item.faithfulness < 1e-5
        matrix = item.operator.dense()
        response = impulse_response(family, model, layer, ids[:1])
        torch.testing.assert_close(matrix[0], response, rtol=0, atol=1e-5, check_dtype=False)
        assert not matrix.triu(1).any()
        reach = 20 if window is None else window - 1
        assert item.operator.state_size().tolist() == [min(i, reach) for i in range(21)]
    assert capture(model, ids).run_difference == 0


@pytest.mark.parametrize("alibi", [False, True])
def test_the_one_value_head_of_multi_query_attention_is_multiplied_by_the_maps_of_all(alibi):
    model, ids = attention_model("falcon", attn_implementation="eager", alibi=alibi), token_ids()
    for item, layer in zip(capture(model, ids), model.transformer.h, strict=True):
        assert (item.units, item.groups, item.stored_channels) == (4, 1, 8)
        response = impulse_response("falcon", model, layer, ids[:1])
        torch.testing.assert_close(item.operator.dense()[0].float(), response, rtol=0, atol=1e-5)


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


def test_a_softmax_that_mixes_no_values_is_none_of_attention():
    class Gate(nn.Module):
        def forward(self, hidden):
            # Weights of as many experts as there are positions.
            hidden = hidden + torch.softmax(hidden.repeat(1, 1, 3)[..., :21], -1) @ torch.ones(21, 8)
            return hidden * torch.softmax(hidden[:, None] @ hidden[:, None].mT, -1).sum((1, 2))[..., None]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.gate = nn.Embedding(64, 8), Gate()
            self.attention = attention_model("gptj").transformer.h[0].attn

        def forward(self, input_ids):
            hidden = self.gate(self.embedding(input_ids)).repeat(1, 1, 4)
            position = torch.arange(hidden.shape[1])[None]
            causal = torch.full((21, 21), -1e9).triu(1)[None, None]
            return self.attention(hidden, attention_mask=causal, position_ids=position)[0]

    assert [item.name for item in capture(Model(), token_ids())] == ["attention"]


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
