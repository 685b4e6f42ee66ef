"""Tasks of ready-made arrays."""

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks import MQAR, from_arrays
from statesize.lab.training import TrainingConfig, train


def arrays(sequences=40):
    return MQAR(pairs=2, length=8, vocabulary_size=8).sample(sequences, torch.Generator().manual_seed(0))


def test_the_last_tenth_is_held_out_and_never_trained_on():
    inputs, targets = arrays()
    task = from_arrays(inputs, targets)
    held = [torch.cat(parts) for parts in zip(*task.held_out(3), strict=True)]
    assert torch.equal(held[0], inputs[36:])
    assert torch.equal(held[1], targets[36:])
    numbered = torch.arange(40)[:, None].repeat(1, 8)
    drawn, _ = from_arrays(numbered, targets).sample(500, torch.Generator().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == set(range(36))


def test_a_model_trains_on_it(tmp_path):
    model = LanguageModel(ModelConfig("la", 8, width=8, heads=2, layers=1, mlp_factor=0))
    record = train(model, from_arrays(*arrays()), TrainingConfig(steps=2, batch_size=4), tmp_path / "run")
    assert set(record.steps[-1].held_out) == {"loss", "accuracy", "chance", "sequence_accuracy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, t: (i, t.int()), "targets must be of dtype torch.int64, got torch.int32"),
        (lambda i, t: (i.double(), t), "inputs must be of dtype torch.int64"),
        (lambda i, t: (i, t[:, :-1]), r"targets must have shape \(S, L\)"),
        (lambda i, t: (i[:1], t[:1]), "of at least 2"),
        (lambda i, t: (i - 1, t), "inputs must be token ids of at least 0"),
        (lambda i, t: (i, torch.where(t == -100, -1, t)), "targets must be token ids of at least 0"),
        (lambda i, t: (i, torch.full_like(t, -100)), "must score something"),
        (lambda i, t: (i, i), "must not be the tokens at the same positions"),
        (lambda i, t: (i.tolist(), t), "inputs must be a tensor"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        from_arrays(*change(*arrays()))
