"""Mixers, tasks and studies of one's own: one decorator is all, and what cannot be registered is refused."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.errors import FileError, InputError
from statesize.lab import registry
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint, mixer, save_checkpoint
from statesize.lab.studies import study
from statesize.lab.tasks import SyntheticTask, build_task, task

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


def built(name, seed=0):
    config = ModelConfig(name, vocabulary_size=9, width=8, heads=2, layers=2, key_size=3)
    return LanguageModel(config, torch.Generator().manual_seed(seed))


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
    with pytest.raises(InputError, match=r"^mixer must have a step form .*, got Average"):
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
    with pytest.raises(InputError, match=r"must be one of .*got 'mine'"):
        kinds["mine"]


def test_a_task_of_ones_own_takes_one_decorator():
    task("echo")(Echo)
    assert build_task({"name": "echo", "vocabulary_size": 7}) == Echo(vocabulary_size=7)
    assert [len(inputs) for inputs, _ in Echo(7).held_out(200)] == [200, 56]
    with pytest.raises(InputError, match=r"^Task echo cannot be built: .*vocabulary_size"):
        build_task({"name": "echo"})


def test_a_file_plugs_in_what_it_registers(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from statesize.lab.mixers import LinearAttention, mixer\n"
        "@mixer('mine')\nclass Mine(LinearAttention):\n    pass\n"
    )
    registry.load_plugin(path)
    assert torch.equal(built("mine")(TOKENS), built("la")(TOKENS))
    with pytest.raises(FileError, match=r"^plugin must be a Python file"):
        registry.load_plugin(tmp_path / "none.py")
