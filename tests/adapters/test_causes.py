"""What cannot be measured is refused by its cause, in one line."""

import pytest
import torch
from oracles.pretrained import tiny_llama
from torch import nn
from torch.nn import functional

import statesize as ss
from statesize.errors import InputError, ModelError


def refused(error, pattern, call, *arguments, **options):
    with pytest.raises(error, match=pattern) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "pattern"),
    [
        ([[5, 6, 400]], "input_ids must be from 0 to 299, the tokens that the model knows, got 400"),
        ([[5, -6, 4]], "input_ids must be from 0 to 299, .* got -6"),
        ([[5.0, 6.0]], "input_ids must be integers of dtype torch.int64, got dtype torch.float32"),
        ([[True, False]], "input_ids must be integers of dtype torch.int64, got dtype torch.bool"),
    ],
)
def test_ids_that_are_none(ids, pattern):
    refused(InputError, pattern, ss.capture, tiny_llama(), torch.tensor(ids))


class Own(nn.Module):
    """A model of one's own that knows 40 tokens and 12 positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.positions = nn.Embedding(40, 8), nn.Embedding(12, 8)

    def forward(self, ids):
        hidden = (self.tokens(ids) + self.positions(torch.arange(ids.shape[1])))[:, None]
        return functional.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)[:, 0]


@pytest.mark.parametrize(
    ("ids", "pattern"),
    [
        (torch.ones(1, 8), r"inputs must be integers of dtype torch.int64, got dtype torch.float32. Give ids.long\(\)"),
        (torch.tensor([[3, 40, 5]]), "inputs must be from 0 to 39, the tokens that the model knows, got 40. Make the"),
        (torch.ones(1, 13, dtype=torch.long), "inputs must have at most 12 tokens, .* positions, got 13. Give shorter"),
    ],
)
def test_inputs_that_a_model_of_ones_own_cannot_take(ids, pattern):
    for call in (ss.capture, ss.network_ess, ss.profile):
        refused(InputError, pattern, call, Own(), ids)
    assert ss.capture(Own(), torch.ones(1, 12, dtype=torch.int32)).length == 12


def test_an_error_of_a_models_own_stays_its_own():
    model = Own()
    model.tokens.forward = lambda ids: nn.Embedding(2, 8)(ids[:, :1] + 2).expand(-1, ids.shape[1], -1)
    refused(IndexError, "index out of range in self", ss.capture, model, torch.ones(1, 2, dtype=torch.long))


class Dividing(nn.Module):
    """A running mean that divides by nothing."""

    def forward(self, hidden):
        return hidden.cumsum(1) / (hidden - hidden)


class Block(nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.mixer, self.mlp = mixer, nn.Sequential(nn.Linear(16, 16), nn.GELU())

    def forward(self, hidden):
        hidden = hidden + self.mixer(hidden)
        return hidden + self.mlp(hidden)


class Summing(nn.Module):
    def forward(self, hidden):
        return hidden.cumsum(1)


def test_what_takes_nan_from_a_layer_is_no_other_layer():
    finite = r"Mixer 1\.mixer must return finite numbers, got NaN or infinity\. Check .* not finite\."
    blocks = [nn.Embedding(50, 16), Block(Dividing())]
    refused(ModelError, f"^{finite}", ss.capture, nn.Sequential(*blocks), torch.arange(12)[None])
    # A mixer behind it is named, and the reason is not its own.
    refused(
        ModelError, f"^{finite} Nor was .*2.mixer measured", ss.capture,
        nn.Sequential(*blocks, Block(Summing())), torch.arange(12)[None],
    )  # fmt: skip
    later = nn.Sequential(nn.Embedding(50, 16), Block(Summing()), Block(Dividing()))
    with pytest.warns(ss.errors.StatesizeWarning, match=r"^1 of 2 layers"):
        profile = ss.profile(later, torch.arange(12)[None])
    assert "1 of 2 layers not measured" in repr(profile)


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
    pattern = "has no mixer that statesize knows"
    refused(ModelError, pattern, ss.capture, nn.Sequential(nn.Embedding(50, 16), within), ids)
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


class SummingTokens(nn.Module):
    def forward(self, hidden):
        return hidden.cumsum(-2)


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
    capture = ss.capture(routed(SummingTokens(), 0.1), ids)
    assert [item.name for item in capture] == ["1.expert"]
    assert "SummingTokens must return the same shape for other numbers, got (12, 16) and (" in str(capture.skipped["1"])
    # No tokens are mixed.
    refused(ModelError, "Sequential has no mixer that", ss.capture, routed(SummingTokens(), -9.0), ids)


@pytest.mark.parametrize("layer", [nn.Sequential(nn.Linear(8, 8), Summing()), nn.GRU(8, 4, batch_first=True)])
@pytest.mark.parametrize("measure", [ss.profile, ss.capture, ss.network_ess])
def test_ids_for_a_layer_that_takes_hidden_states_are_refused_by_name(measure, layer):
    said = (
        r"^inputs must be hidden states of shape \(sequences, positions, channels\) for .* got integers of shape \(1, "
    )
    with pytest.raises(InputError, match=said):
        measure(layer, torch.arange(24)[None])
