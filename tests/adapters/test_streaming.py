"""Attention of one's own whose mask drops tokens: it holds the tokens that later rows still read."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.codes import joined

LENGTH, HEADS, WIDTH = 48, 2, 16
# Of one token: keys and values of all heads, in float32.
TOKEN_BYTES = 2 * WIDTH * 4
POSITION = torch.arange(LENGTH)
CAUSAL = POSITION <= POSITION[:, None]
BAND = CAUSAL & (POSITION > POSITION[:, None] - 8)
STREAM = BAND | (CAUSAL & (POSITION < 2))
# Which tokens these are follows no rule of positions.
DRAWN = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) < 0.3
CHOSEN = CAUSAL & (DRAWN | torch.eye(LENGTH, dtype=torch.bool))


class Attention(nn.Module):
    """Two heads, which see what a mask lets them see."""

    def __init__(self, how, mask):
        super().__init__()
        self.how, self.mask = how, mask
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(hidden).chunk(3, -1))
        if self.how == "sdpa":
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)
        else:
            scores = query @ key.mT / (WIDTH // HEADS) ** 0.5
            weights = scores.exp() * self.mask
            maps = scores.masked_fill(~self.mask, -torch.inf).softmax(-1) if self.how == "softmax" else None
            mixed = (weights / weights.sum(-1, keepdim=True) if maps is None else maps) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


def captured(how, mask, **attributes):
    torch.manual_seed(0)
    layer = type("Own", (Attention,), attributes)(how, mask)
    (item,) = ss.capture(nn.Sequential(nn.Embedding(LENGTH, WIDTH), layer), POSITION[None])
    return item


@pytest.mark.parametrize("how", ["softmax", "sdpa"])
@pytest.mark.parametrize(("mask", "held"), [(STREAM, 9), (BAND, 7), (CAUSAL, None)], ids=["stream", "band", "causal"])
def test_tokens_that_no_later_row_reads_are_not_held(how, mask, held):
    item, most = captured(how, mask), LENGTH if held is None else held
    assert (item.state_size, joined(item.notes)) == (held, "")
    assert item.kind == ("sliding attention" if mask is BAND else "attention")
    assert item.operator.state_size().tolist() == [min(i, most) for i in range(LENGTH)]
    assert item.state_bytes == most * TOKEN_BYTES


@pytest.mark.parametrize("how", ["softmax", "sdpa"])
def test_what_the_class_names_counts_if_t_reads_no_more(how):
    item = captured(how, STREAM, state_size=9, kind="stream")
    assert (item.kind, item.state_size, item.state_bytes, joined(item.notes)) == ("stream", 9, 9 * TOKEN_BYTES, "")
    larger = captured(how, STREAM, state_size=20)
    assert (larger.state_size, larger.state_bytes) == (20, 20 * TOKEN_BYTES)
    for mask, held in ((STREAM, 9), (CAUSAL, None)):
        assert captured(how, mask, state_size=8).state_size == held
    short = captured(how, CAUSAL, state_size=200)
    assert short.operator.state_size().tolist() == list(range(LENGTH))
    assert short.state_bytes == LENGTH * TOKEN_BYTES


@pytest.mark.parametrize("how", ["softmax", "sdpa"])
def test_tokens_that_content_hides_are_held(how):
    item = captured(how, CHOSEN)
    assert item.state_size is None
    assert item.state_bytes == LENGTH * TOKEN_BYTES
