"""Models that compute in autocast: a mixer that runs alone has the precision that it had in the model."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.codes import joined

IDS = torch.randint(3, 60, (2, 24), generator=torch.Generator().manual_seed(8))


class SoftmaxAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, hidden):
        scores = (self.query(hidden) @ self.key(hidden).mT / 4).float()
        later = torch.ones_like(scores).triu(1).bool()
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return hidden + self.output(weights @ self.value(hidden))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.value, self.output = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, hidden):
        gate, value, state, states = self.gate(hidden).sigmoid(), self.value(hidden), 0, []
        for position in range(hidden.shape[1]):
            state = gate[:, position] * state + value[:, position]
            states.append(state)
        return hidden + self.output(torch.stack(states, 1))


class Model(nn.Module):
    """A model whose forward enters autocast, around all of it or inside its mixer."""

    def __init__(self, mixer, autocast=torch.bfloat16):
        super().__init__()
        self.embedding, self.mixer, self.head = nn.Embedding(64, 16), mixer(), nn.Linear(16, 64)
        self.autocast = autocast

    def forward(self, input_ids):
        with torch.autocast("cpu", dtype=self.autocast, enabled=self.autocast is not None):
            return self.head(self.mixer(self.embedding(input_ids)))


def model_of(mixer, autocast=torch.bfloat16):
    torch.manual_seed(0)
    return Model(mixer, autocast)


def in_itself(mixer):
    """The class of a mixer whose own forward enters autocast."""

    class Own(mixer):
        def forward(self, hidden):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(hidden)

    return Own


@pytest.mark.few(2)
@pytest.mark.parametrize("mixer", [SoftmaxAttention, Recurrent])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_a_mixer(mixer, dtype):
    (found,) = ss.capture(model_of(mixer, dtype), IDS)
    plain = model_of(mixer, None)
    (expected,) = ss.capture(plain, IDS)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert joined(found.notes) == joined(expected.notes)
    # What enters the mixer is the same, and T is that of float64.
    torch.testing.assert_close(found.operator.dense(), expected.operator.dense(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mixer", [SoftmaxAttention, Recurrent])
def test_autocast_inside_a_mixer(mixer):
    (found,) = ss.capture(model_of(in_itself(mixer), None), IDS)
    assert 1e-5 < found.faithfulness <= found.agreement.allowed <= 1e-2
    assert "Its own arithmetic rounds" in joined(found.agreement.notes)
