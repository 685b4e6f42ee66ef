"""Training without files: the same weights as with them."""

import dataclasses

import pytest
import torch

from statesize.lab.training import DivergenceError, TrainingConfig, train, train_in_memory

CONFIG = TrainingConfig(steps=6, batch_size=4, rate=1e-2, seed=3, evaluate_every=2)


def test_the_same_weights_as_train(echo, make_model, tmp_path):
    one, other = make_model(dropout=0.1), make_model(dropout=0.1)
    kept = train(one, echo, CONFIG, tmp_path)
    steps = list(train_in_memory(other, echo, CONFIG))
    assert [step.loss for step in steps] == [step.loss for step in kept.steps]
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_run_that_diverges_keeps_the_weights_of_the_step_before(echo, make_model):
    model = make_model()
    steps = train_in_memory(model, echo, dataclasses.replace(CONFIG, rate=1e30))
    next(steps)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DivergenceError, match="learning rate below"):
        list(steps)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
