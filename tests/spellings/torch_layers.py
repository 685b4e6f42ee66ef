"""Layers of torch itself, whose maps its own functions compute."""

import torch
from spellings.projections import HEADS, WIDTH, Projected
from spellings.softmax_attention import later, softmax_maps
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def maps_of(attention, hidden):
    """The maps that an nn.MultiheadAttention returns, (S, head, L, L)."""
    hidden = hidden if attention.batch_first else hidden.transpose(0, 1)
    options = {"attn_mask": later(hidden.shape[1 if attention.batch_first else 0]), "average_attn_weights": False}
    return attention(hidden, hidden, hidden, **options)[1]


class BatchFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def definition(self, hidden):
        return maps_of(self.attention, hidden)

    def forward(self, hidden):
        mask = later(hidden.shape[1])
        return self.attention(hidden, hidden, hidden, attn_mask=mask, need_weights=False, is_causal=True)[0]


class PositionsFirst(BatchFirst):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, bias=False)

    def forward(self, hidden):
        hidden = hidden.transpose(0, 1)
        mixed, _ = self.attention(hidden, hidden, hidden, attn_mask=later(len(hidden)))
        return mixed.transpose(0, 1)


class EncoderLayer(nn.Module):
    """Norm behind, as torch has it by default."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)

    def definition(self, hidden):
        return maps_of(self.layer.self_attn, hidden)

    def forward(self, hidden):
        mask = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1])
        return self.layer(hidden, src_mask=mask, is_causal=True)


class EncoderStack(EncoderLayer):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def definition(self, hidden):
        layer = self.encoder.layers[0]
        return maps_of(layer.self_attn, layer.norm1(hidden))

    def forward(self, hidden):
        return self.encoder(hidden, mask=nn.Transformer.generate_square_subsequent_mask(hidden.shape[1]))


class DecoderLayer(EncoderLayer):
    """Its cross-attention reads another text, of another length."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
        self.memory = nn.Parameter(torch.randn(1, 5, WIDTH))

    def forward(self, hidden):
        mask = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1])
        return self.layer(hidden, self.memory.expand(len(hidden), -1, -1), tgt_mask=mask)


class Flex(Projected):
    definition = softmax_maps

    def forward(self, hidden):
        length = hidden.shape[1]
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device="cpu")
        return self.joined(flex_attention(*self.heads(hidden), block_mask=mask))


SPELLINGS = (BatchFirst, PositionsFirst, EncoderLayer, EncoderStack, DecoderLayer, Flex)
