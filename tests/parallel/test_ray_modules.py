"""A module that goes to another process: pickled without its numbers, and the same when it arrives."""

import pickle
import threading

import pytest
import torch
from torch import nn

from statesize.errors import ModelError
from statesize.models.load import model_facts
from statesize.parallel.ray import put_together, take_apart


class Tied(nn.Module):
    """What copies lose easily: tied weights, buffers outside the state_dict, and tensors that have a second name."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(300, 40), nn.Linear(40, 300, bias=False)
        self.head.weight = self.embedding.weight
        self.low = nn.Parameter(torch.randn(3, 2).bfloat16(), requires_grad=False)
        self.transposed = nn.Parameter(torch.randn(4, 6).T)
        self.register_buffer("frequencies", torch.randn(5), persistent=False)
        self.register_buffer("step", torch.tensor(7))
        self.register_buffer("nothing", torch.empty(0, 3))
        self.original = self.frequencies
        self.plain = torch.arange(4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tied().eval()


def test_it_arrives_as_it_was(model):
    digest = model_facts(model)["weights"]
    structure, contents = take_apart(model)
    sent = pickle.dumps(structure)
    assert len(sent) < model.head.weight.numel() * 4 / 4
    arrived = put_together(pickle.loads(sent), contents)  # noqa: S301
    assert model_facts(arrived)["weights"] == model_facts(model)["weights"] == digest
    assert repr(arrived) == repr(model)
    assert not arrived.training
    assert arrived.head.weight is arrived.embedding.weight
    assert arrived.original is arrived.frequencies
    assert [parameter.requires_grad for parameter in arrived.parameters()] == [False, True, True]
    for name in ("frequencies", "step", "nothing", "plain", "transposed"):
        assert torch.equal(getattr(arrived, name), getattr(model, name))


def test_what_arrives_is_its_own(model):
    structure, contents = take_apart(model)
    for content in contents:
        content.flags.writeable = False
    first, second = (put_together(structure, contents) for _ in range(2))
    with torch.no_grad():
        first.head.weight.zero_()
    assert torch.equal(second.head.weight, model.head.weight)
    assert model.head.weight.any()


def test_what_cannot_be_copied(model):
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"Tied holds something that cannot be copied.*function that loads"):
        take_apart(model)
