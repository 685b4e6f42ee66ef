"""Digests: the same for the same, and different for a change of any kind."""

import math

import torch
from torch import nn

from statesize.models.load import model_facts
from statesize.texts.inputs import tokens_sha256


def test_a_changed_weight():
    model = nn.Linear(3, 4)
    before = model_facts(model)["weights"]
    assert model_facts(model)["weights"] == before
    with torch.no_grad():
        model.bias[0] += math.ulp(1.0) * 2**30
    assert model_facts(model)["weights"] != before


def test_where_sequences_end():
    assert tokens_sha256([torch.tensor([1, 2, 3])]) != tokens_sha256([torch.tensor([1, 2]), torch.tensor([3])])
