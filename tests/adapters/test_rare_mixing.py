"""Layers that mix by more than T at the borders of blocks only: T holds that too, or they say that it does not."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize import capture
from statesize.codes import Code, Note, joined

WIDTH, BLOCK, LENGTH = 4, 8, 40


def carried(hidden):
    """The last token of the block before, at each position of a block."""
    last = torch.arange(hidden.shape[1]) // BLOCK * BLOCK - 1
    return torch.where(last[:, None] >= 0, hidden[:, last.clamp(min=0)], 0.0)


def bridged(hidden):
    """The first token of each block with the token before it."""
    first = (torch.arange(hidden.shape[1]) % BLOCK == 0)[:, None]
    return hidden + first * functional.pad(hidden, (0, 0, 1, 0))[:, :-1]


class Layer(nn.Module):
    """An exponential mean, linear attention or attention, with mixing at the borders of blocks somewhere."""

    def __init__(self, kind, where):
        super().__init__()
        self.kind, self.where = kind, where
        self.project, self.rates = nn.Linear(WIDTH, 3 * WIDTH), nn.Parameter(torch.rand(WIDTH))

    def parts(self, hidden):
        return self.project(hidden).chunk(3, -1)

    def matrix(self, query, key):
        """T without the borders, (S, unit, L, L)."""
        at = torch.arange(query.shape[1])
        if self.kind == "mean":
            powers = self.rates[:, None, None] ** (at[:, None] - at).clamp(min=0)
            return powers.tril().expand(len(query), -1, -1, -1)
        return (query @ key.mT).tril()[:, None]

    def forward(self, hidden):
        query, key, value = self.parts(hidden)
        values = bridged(value) if self.where == "before" else value
        if self.kind == "attention":
            mixed = functional.scaled_dot_product_attention(
                query[:, None], key[:, None], values[:, None], is_causal=True
            )[:, 0]
        elif self.kind == "mean":
            mixed = torch.einsum("scij,sjc->sic", self.matrix(query, key), values)
        else:
            mixed = self.matrix(query, key)[:, 0] @ values
        if self.where == "behind":
            return bridged(mixed)
        if self.where == "beside":
            return mixed + carried(hidden)
        return mixed + carried(value) if self.where == "beside its values" else mixed

    def definition(self, hidden):
        """T of the whole from values to what is passed on, in float64, by an impulse at each position."""
        layer = self.double()
        query, key, _ = layer.parts(hidden)
        entered = torch.eye(LENGTH, dtype=torch.float64)[:, :, None].expand(-1, -1, WIDTH)
        query, key = (part.expand(LENGTH, -1, -1) for part in (query, key))
        layer.parts = lambda _: (query, key, entered)
        try:
            return layer(entered.clone()).permute(2, 1, 0)
        finally:
            del layer.parts


class Declared(Layer):
    def operator(self, hidden):
        query, key, _ = self.parts(hidden)
        return ss.Dense(self.matrix(query, key), state_size=torch.arange(hidden.shape[1]))


def captured(layer):
    torch.manual_seed(0)
    model, ids = nn.Sequential(nn.Embedding(50, WIDTH), layer).eval(), torch.randint(50, (1, LENGTH))
    (item,) = capture(model, ids)
    return item, model, ids


@pytest.mark.parametrize("where", ["before", "behind", "beside its values"])
@pytest.mark.parametrize("kind", ["mean", "linear", "attention"])
@torch.no_grad()
def test_t_found_by_impulses_holds_what_is_mixed_at_borders(kind, where):
    item, model, ids = captured(Layer(kind, where))
    matrix = item.operator.dense()[0]
    expected = model[1].definition(model[0](ids).double())
    assert (matrix - expected[: len(matrix)]).abs().max() < 1e-9 * expected.abs().max()


@pytest.mark.parametrize("kind", ["mean", "linear", "attention"])
def test_what_is_mixed_of_what_enters_beside_its_values_is_told(kind):
    item, _, _ = captured(Layer(kind, "beside"))
    assert item.kind == kind
    assert Note(Code.PART, "T is without a mixing of 9 positions beside it.") in item.notes


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("kind", ["mean", "linear"])
def test_a_declared_t_says_what_is_mixed_around_it_at_borders(kind, where):
    item, _, _ = captured(Declared(kind, where))
    side = {"before": "before it", "behind": "behind it"}[where]
    assert joined(item.notes).startswith(f"Measured in part: T is without a mixing of 2 positions {side}")


@pytest.mark.parametrize("where", ["beside", "beside its values"])
@pytest.mark.parametrize("kind", ["mean", "linear"])
def test_a_declared_t_says_what_is_mixed_beside_it_at_borders(kind, where):
    item, _, _ = captured(Declared(kind, where))
    assert Note(Code.PART, "T is without a mixing of 9 positions beside it.") in item.notes


class Bridge(nn.Module):
    def forward(self, hidden):
        return bridged(hidden)


def test_a_layer_that_mixes_at_borders_alone_is_seen():
    torch.manual_seed(0)
    model, ids = nn.Sequential(nn.Embedding(50, WIDTH), Bridge()).eval(), torch.randint(50, (1, LENGTH))
    (item,) = capture(model, ids)
    matrix = item.operator.dense()[0, 0].float()
    assert torch.equal(matrix, bridged(torch.eye(LENGTH)[None])[0])
