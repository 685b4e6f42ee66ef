"""Mixers of one's own by name: their first values, their gradients, and what is refused."""

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.errors import InputError
from statesize.lab.mixers import (
    MIXERS,
    LanguageModel,
    ModelConfig,
    load_checkpoint,
    mixer_names,
    register_mixer,
    save_checkpoint,
)
from statesize.lab.mixers import registry as registry_module
from statesize.lab.mixers.attention.linear import LinearAttention


@pytest.fixture(autouse=True)
def leave_the_registry(monkeypatch):
    monkeypatch.setattr(registry_module, "_REGISTERED", {})


class Average(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.5, 0.9, config.width))
        self.output = nn.Linear(config.width, config.width)
        self.register_buffer("scale", torch.full((), 0.5), persistent=False)

    def forward(self, hidden):
        return self.output(self.scale * self.operator(hidden).apply(hidden.mT.unsqueeze(-1)).squeeze(-1).mT)

    def operator(self, hidden):
        sequences, length, width = hidden.shape
        decay = self.decay[:, None, None].expand(sequences, width, length, 1)
        return ss.Recurrence(A=decay, B=1 - decay, C=torch.ones_like(decay))


class Forgetful(LinearAttention):
    kind = "forgetful"

    def log_decay(self, hidden):
        return torch.full((1, self.heads, 1, self.key_size), -0.1)


def built(mixer, seed=0):
    config = ModelConfig(mixer, vocabulary_size=9, width=8, heads=2, layers=2, key_size=3)
    return LanguageModel(config, torch.Generator().manual_seed(seed))


TOKENS = torch.arange(12).remainder(9).view(2, 6)


def test_it_starts_as_it_made_itself_and_follows_the_seed(tmp_path):
    register_mixer("average", Average)
    assert mixer_names() == (*MIXERS, "average")
    state = torch.random.get_rng_state()
    model, other = built("average,la"), built("average,la", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    mixer, same = model.blocks[0].mixer, built("average,la").blocks[0].mixer
    assert torch.equal(mixer.decay.data, torch.linspace(0.5, 0.9, 8))
    assert float(mixer.scale) == 0.5
    assert torch.equal(mixer.output.weight, same.output.weight)
    assert not torch.equal(mixer.output.weight, other.blocks[0].mixer.output.weight)
    model(TOKENS).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    save_checkpoint(model.eval(), tmp_path / "model")
    assert torch.equal(load_checkpoint(tmp_path / "model")(TOKENS), model(TOKENS))


def test_without_a_step_form_it_runs_over_whole_sequences_only():
    register_mixer("average", Average)
    with pytest.raises(InputError, match="mixer must have a step form to run token by token, got Average"):
        built("average,la").initial_caches(1)


def test_it_is_captured():
    register_mixer("average", Average)
    first, second = ss.capture(built("average,la"), TOKENS)
    assert (first.kind, first.units, second.kind) == ("Average", 8, "la")
    assert torch.equal(first.operator.state_size(), torch.ones(6, dtype=torch.int64))


def test_a_subclass_of_a_mixer_starts_as_the_others():
    register_mixer("forgetful", Forgetful)
    plain, forgetful = built("la"), built("forgetful")
    assert torch.equal(plain.blocks[1].mixer.projection.weight, forgetful.blocks[1].mixer.projection.weight)
    assert not torch.equal(plain(TOKENS), forgetful(TOKENS))


def test_a_name_is_taken_once_and_the_same_class_replaces_itself():
    register_mixer("average", Average)
    again = type("Average", (Average,), {"__module__": Average.__module__, "__qualname__": Average.__qualname__})
    register_mixer("average", again)
    assert type(built("average").blocks[0].mixer) is again
    with pytest.raises(InputError, match="no other mixer has, got 'average'"):
        register_mixer("average", Forgetful)


@pytest.mark.parametrize(
    ("name", "mixer", "message"),
    [
        ("la", Average, "no other mixer has, got 'la'"),
        ("la,mine", Average, "name must be letters, digits, - and _, got 'la,mine'"),
        ("", Average, "name must be letters, digits, - and _, got ''"),
        ("mine", nn.Linear, r"mixer must have a method operator\(hidden\) .*got Linear without"),
        ("mine", int, "mixer must be a class that inherits torch.nn.Module, got "),
        ("mine", nn.Linear(1, 1), "mixer must be a class that inherits torch.nn.Module, got "),
    ],
)
def test_what_is_refused(name, mixer, message):
    with pytest.raises(InputError, match=message):
        register_mixer(name, mixer)
    assert mixer_names() == tuple(MIXERS)
    with pytest.raises(InputError, match=r"mixer must be one of .*got 'mine'"):
        ModelConfig("mine")
