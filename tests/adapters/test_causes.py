"""What cannot be measured is refused by its cause, in one line."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.errors import ModelError


def refused(pattern, model, ids):
    with pytest.raises(ModelError, match=pattern) as caught:
        ss.capture(model, ids)
    assert "\n" not in str(caught.value)


class Dividing(nn.Module):
    """A running mean that divides by nothing."""

    def forward(self, hidden):
        return hidden.cumsum(1) / (hidden - hidden)


class Block(nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden):
        return hidden + self.mixer(hidden)


class Summing(nn.Module):
    def forward(self, hidden):
        return hidden.cumsum(-2)


def test_what_takes_nan_from_a_layer_is_no_other_layer():
    finite = r"Mixer 1\.mixer must return finite numbers, got NaN or infinity\. Check .* not finite\."
    blocks, ids = [nn.Embedding(50, 16), Block(Dividing())], torch.arange(12)[None]
    refused(f"^{finite}", nn.Sequential(*blocks), ids)
    # A mixer behind it is named, and the reason is not its own.
    refused(f"^{finite} Nor was .*2.mixer measured", nn.Sequential(*blocks, Block(Summing())), ids)
    later = nn.Sequential(blocks[0], Block(Summing()), Block(Dividing()))
    with pytest.warns(ss.errors.StatesizeWarning, match=r"^1 of 2 layers"):
        profile = ss.profile(later, ids)
    assert list(profile.not_measured) == ["2.mixer"]


class WithinTokens(nn.Module):
    """Heads that attend to the heads of the same token."""

    def __init__(self, fused=False):
        super().__init__()
        self.parts, self.fused = nn.Linear(16, 48), fused

    def forward(self, hidden):
        query, key, value = (part.unflatten(-1, (4, 4)) for part in self.parts(hidden).chunk(3, -1))
        if self.fused:
            return functional.scaled_dot_product_attention(query, key, value).flatten(2)
        return ((query @ key.mT).softmax(-1) @ value).flatten(2)


@pytest.mark.parametrize("length", [4, 12])
@pytest.mark.parametrize("fused", [False, True])
def test_attention_within_each_token_mixes_no_positions(fused, length):
    torch.manual_seed(0)
    ids, within = torch.randint(50, (1, length)), WithinTokens(fused)
    refused("has no mixer that statesize knows", nn.Sequential(nn.Embedding(50, 16), within), ids)
    # Nothing is lost where it is not measured.
    profile = ss.profile(nn.Sequential(nn.Embedding(50, 16), Summing(), within), ids)
    assert list(profile.mixers) == ["1"]
    assert profile.not_measured == {}


class Routed(nn.Module):
    """One expert, which sums up those of a text's tokens whose first number is positive."""

    def __init__(self, expert):
        super().__init__()
        self.expert = expert

    def forward(self, hidden):
        chosen = (hidden[0, :, 0] > 0).nonzero().flatten()
        return torch.zeros_like(hidden[0]).index_add(0, chosen, self.expert(hidden[0, chosen]))[None]


def routed(expert, first):
    """A model in which all tokens of a text, or none, are routed to an expert."""
    torch.manual_seed(0)
    embedding = nn.Embedding(50, 16)
    embedding.weight.data[:, 0] = first
    return nn.Sequential(embedding, Routed(expert))


def test_experts_of_other_tokens_are_told_in_words():
    ids = torch.arange(12)[None]
    # The routing is taken as the model took it.
    (captured,) = ss.capture(routed(lambda tokens: tokens.cumsum(-2), 0.1), ids)
    assert captured.kind == "Routed"
    capture = ss.capture(routed(Summing(), 0.1), ids)
    assert [item.name for item in capture] == ["1.expert"]
    assert "Summing must return the same shape for other numbers, got (12, 16) and (" in str(capture.skipped["1"])
    # No tokens are mixed.
    refused("Sequential has no mixer that", routed(Summing(), -9.0), ids)
