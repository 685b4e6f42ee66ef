"""Every spelling of a causal layer is measured as its definition has it, with no help."""

import pytest
import torch
from spellings import changed_maps, convolutions, linear_attention, softmax_attention, torch_layers
from spellings.projections import WIDTH
from torch import nn

import statesize as ss

FILES = (softmax_attention, changed_maps, linear_attention, convolutions, torch_layers)
SPELLINGS = [spelling for file in FILES for spelling in file.SPELLINGS]
# What others of the same file resemble most, and a T of each channel, in a loop, whose search takes seconds.
SLOW = frozenset(
    "AddedMask Einsum LinearBias OneProjection SquaredRelu LogSumExp Renormalised TopK Cosine StateByCumsum "
    "RetentionLoop Chunked PaddedAndCut ConvolvedInput MovingAverage SelectiveScan PositionsFirst EncoderStack".split()
)
TOKENS = torch.randint(0, 50, (2, 13), generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    """A residual block, its norm before the layer."""

    def __init__(self, layer):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(WIDTH), layer
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, hidden):
        hidden = hidden + self.layer(self.norm(hidden))
        return hidden + self.feed_forward(hidden)


class TinyModel(nn.Module):
    """A language model of some blocks."""

    def __init__(self, spelling, blocks):
        super().__init__()
        self.embedding = nn.Embedding(50, WIDTH)
        self.blocks = nn.ModuleList(Block(spelling()) for _ in range(blocks))
        self.head = nn.Linear(WIDTH, 50)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


def tiny_model(spelling, blocks):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyModel(spelling, blocks).eval()


@torch.no_grad()
def defined(model, tokens):
    """T of each block by the layer's definition, (S, unit, L, L), of what enters the layer."""
    entered = []
    hooks = [block.norm.register_forward_hook(lambda *call: entered.append(call[2])) for block in model.blocks]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return [block.layer.definition(hidden) for block, hidden in zip(model.blocks, entered, strict=True)]


@pytest.mark.few(12)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "index",
    [
        pytest.param(index, marks=pytest.mark.slow if spelling.__name__ in SLOW else (), id=spelling.__name__)
        for index, spelling in enumerate(SPELLINGS)
    ],
)
def test_the_spelling_is_measured_as_its_definition_has_it(index):
    # Two blocks read one text in every second spelling, and one block two texts in the others.
    model, tokens = tiny_model(SPELLINGS[index], 2 - index % 2), TOKENS[: 1 + index % 2]
    capture = ss.capture(model, tokens)
    operators = [captured.operator for captured in capture]
    assert capture.skipped == {}
    for operator, maps in zip(operators, defined(model, tokens), strict=True):
        dense = operator.dense()
        assert dense.shape == maps.shape
        below = torch.ones(dense.shape[-2:]).tril(-1).bool()  # what H_i are made of
        torch.testing.assert_close(
            dense[..., below].double(), maps[..., below].double(), rtol=0, atol=1e-5 * maps.abs().max().item()
        )
