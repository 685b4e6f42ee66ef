"""Mixers, tasks and studies of one's own: one decorator is all, and what cannot be registered is refused."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from oracles.draws import language_model
from torch import nn

import statesize as ss
from statesize.errors import FileError, InputError
from statesize.lab import registry
from statesize.lab.mixers import load_checkpoint, mixer, save_checkpoint
from statesize.lab.studies import study
from statesize.lab.tasks import SyntheticTask, task

TOKENS = torch.arange(12).remainder(9).view(2, 6)


@pytest.fixture(autouse=True)
def leave_the_registries(monkeypatch):
    for kinds in (mixer, task, study):
        kinds.names()
        monkeypatch.setattr(kinds, "_classes", dict(kinds._classes))


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


built = partial(language_model, vocabulary_size=9, width=8, heads=2, layers=2, key_size=3)


def test_a_mixer_starts_as_it_made_itself_and_follows_the_seed(tmp_path):
    mixer("average")(Average)
    state = torch.random.get_rng_state()
    model, (layer, same, other) = built("average,la"), (built("average,la", seed).blocks[0].mixer for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(layer.decay.data, torch.linspace(0.5, 0.9, 8))
    assert float(layer.scale) == 0.5
    assert torch.equal(layer.output.weight, same.output.weight)
    assert not torch.equal(layer.output.weight, other.output.weight)
    save_checkpoint(model.eval(), tmp_path / "model")
    assert torch.equal(load_checkpoint(tmp_path / "model")(TOKENS), model(TOKENS))
    with pytest.raises(InputError):
        model.initial_caches(1)
    first, second = ss.capture(model, TOKENS)
    assert (first.kind, first.units, second.kind) == ("average", 8, "la")
    # The same class replaces itself.
    again = type("Average", (Average,), {"__module__": Average.__module__, "__qualname__": Average.__qualname__})
    mixer("average")(again)
    assert type(built("average").blocks[0].mixer) is again


@dataclass(frozen=True)
class Echo(SyntheticTask):
    vocabulary_size: int
    length: int = 4

    items = 1
    chance = 1.0

    def sample(self, batch_size, generator):
        tokens = torch.randint(self.vocabulary_size, (batch_size, self.length), generator=generator)
        return tokens, tokens


@dataclass(frozen=True)
class Incomplete(SyntheticTask):
    length: int = 4


@dataclass(frozen=True)
class OfText(Echo):
    text: str = ""


class Undecorated(Echo):
    more: int = 4


@pytest.mark.parametrize(
    ("kinds", "name", "kind", "refused"),
    [
        (mixer, "la", Average, "name"),
        (mixer, "la,mine", Average, "name"),
        (mixer, "mine", nn.Linear, "mixer"),
        (mixer, "mine", nn.Linear(1, 1), "mixer"),
        (task, "mqar", Echo, "name"),
        (task, "mine", Incomplete, "task"),
        (task, "mine", OfText, r"OfText\.text"),
        (task, "mine", Undecorated, "task"),
        (task, "mine", int, "task"),
        (study, "mine", int, "study"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_known(kinds, name, kind, refused):
    with pytest.raises(InputError, match=rf"^{refused} must "):
        kinds(name)(kind)
    with pytest.raises(InputError):
        kinds["mine"]


def test_a_plugin_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileError):
        registry.load_plugin(tmp_path / "none.py")
