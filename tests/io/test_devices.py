"""Whatever `torch.set_default_device` says: on the meta device, a tensor that nobody placed has no numbers."""

import pytest
import torch
from oracles.tiny_families import tiny, token_ids
from torch import nn

import statesize as ss
from statesize.integrations.probe import Probe

IDS = token_ids(1)


def numbers(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


OPERATORS = {
    "dense": ss.operators.Dense(numbers(40, 40).tril()),
    "recurrence": ss.Recurrence(*(numbers(40, 6) for _ in range(3))),
    "convolution": ss.Convolution(numbers(40), 40),
    "attention": ss.SoftmaxAttention(numbers(40, 8), numbers(40, 8), 1.0),
}


class OwnLayers(nn.Module):
    """A hand-written attention, and a recurrence that is read by its derivative."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.attention, self.scan = nn.Embedding(64, 8), Attention(), nn.GRU(8, 8, batch_first=True)

    def forward(self, ids):
        hidden = self.embedding(ids)
        hidden = hidden + self.attention(hidden)
        return hidden + self.scan(hidden)[0]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(8, 24)

    def forward(self, hidden):
        query, key, value = self.projection(hidden).chunk(3, -1)
        later = torch.ones(2 * [hidden.shape[1]], device=hidden.device).triu(1).bool()
        return (query @ key.mT).masked_fill(later, -torch.inf).softmax(-1) @ value


def both(call):
    """What a call gives as it is, and where tensors lie on the meta device by default."""
    with torch.device("meta"):
        elsewhere = call()
    return call(), elsewhere


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    operator = OPERATORS[name]
    for call in (
        lambda: ss.measure(operator).entropy,
        lambda: ss.measure(operator, positions=3).relative_count,
        lambda: ss.metrics.hankel_singular_values(operator),
        lambda: ss.metrics.differentiable_entropy(operator, 4),
    ):
        one, other = both(call)
        assert torch.equal(one, other)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "family",
    [
        *("llama", "mamba2", "own", "gla"),
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("mamba", "rwkv", "qwen3_next", "gpt2")),
    ],
)
def test_profiles(family):
    model = OwnLayers() if family == "own" else ss.load("gla")[0] if family == "gla" else tiny(family)
    one, other = both(lambda: ss.profile(model, IDS).summary())
    assert one.to_csv() == other.to_csv()


@pytest.mark.filterwarnings("ignore:.*documents:statesize.errors.StatesizeWarning")
def test_what_else_runs_a_model():
    model, ids = tiny("llama"), torch.cat([IDS.roll(shift, 1) for shift in range(6)]).repeat(1, 3)
    for call in (
        lambda: ss.truncate(model, IDS, documents=1, tokens=20).to_dict(),
        lambda: ss.network_ess(model, IDS[:, :12], positions=2).entropy.tolist(),
        lambda: ss.cache(model, ids, documents=6, tokens=48, settings=ss.Settings(future=16)).documents,
        lambda: Probe(IDS).measure(model).summary().to_csv(),
        lambda: ss.reduce(OPERATORS["recurrence"], state_size=2).recurrence.dense().tolist(),
        lambda: next(ss.capture(model, IDS)).faithfulness,
    ):
        one, other = both(call)
        assert one == other


def test_a_model_runs_with_its_users_default():
    model, seen = OwnLayers(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.get_default_device().type))
    both(lambda: ss.profile(model, IDS, on_progress=lambda _: None))
    runs = len(seen) // 2
    assert runs
    assert seen == ["meta"] * runs + ["cpu"] * runs
