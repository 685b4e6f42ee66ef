"""A module that goes to another process: its numbers lie once beside it, and it is the same when it arrives."""

import threading

import pytest
import torch
from torch import nn

from statesize.errors import ModelError
from statesize.models.load import model_facts
from statesize.parallel.ray import shared

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


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


def test_it_arrives_as_it_was(ray, model):
    digest = model_facts(model)["weights"]
    arrived = ray.get(shared(ray, model))
    assert model_facts(arrived)["weights"] == model_facts(model)["weights"] == digest
    assert repr(arrived) == repr(model)
    assert not arrived.training
    assert arrived.head.weight is arrived.embedding.weight
    assert arrived.original is arrived.frequencies
    assert [parameter.requires_grad for parameter in arrived.parameters()] == [False, True, True]
    for name in ("frequencies", "step", "nothing", "plain", "transposed"):
        assert torch.equal(getattr(arrived, name), getattr(model, name))


def test_what_arrives_is_its_own(ray, model):
    reference = shared(ray, model)
    first, second = ray.get(reference), ray.get(reference)
    with torch.no_grad():
        first.head.weight.zero_()
    assert torch.equal(second.head.weight, model.head.weight)
    assert torch.equal(ray.get(reference).head.weight, model.head.weight)
    assert model.head.weight.any()


def test_numbers_go_beside_the_pickled_module(ray, model, monkeypatch):
    pickled, bare = [], ray.put

    def put(module):
        pickled.append(ray.cloudpickle.dumps(module, protocol=5, buffer_callback=lambda buffer: None))
        return bare(module)

    monkeypatch.setattr(ray, "put", put)
    shared(ray, model)
    assert len(pickled[0]) < model.head.weight.numel() * 4 / 4
    # Tensors of the user's own go as Ray sends them.
    assert len(ray.cloudpickle.dumps(model.head.weight)) > model.head.weight.numel() * 4


def test_what_cannot_be_copied(ray, model):
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"model.* cannot be copied.*lock.*function that loads"):
        shared(ray, model)
