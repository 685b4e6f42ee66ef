"""What a model computes with beside its tensors: what changes it, and what does not."""

import copy
import functools
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from statesize.models.computation import computation_sha256

POWER = 1.0


def decayed(distance):
    return distance**-POWER


class Weigh:
    by = 2.0

    def __call__(self, hidden):
        return hidden if self.by in {"a", "b", "c", "d"} else self.by * hidden


class Mix(nn.Module):
    slope = 1.0

    def __init__(self, reach, weigh):
        super().__init__()
        self.reach, self.weigh, self.table = reach, weigh, torch.ones(3)
        self.project = nn.Linear(4, 4)

    @property
    def half(self):
        return self.reach / 2

    def forward(self, hidden):
        return self.project(hidden) * self.half * decayed(torch.arange(1.0, 5.0)) * self.slope


def own(reach=2, weigh=torch.tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(8, 4), Mix(reach, weigh))


def llama():
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, attn_implementation="eager"))


def scaled(factor):
    def forward(self, hidden):
        return factor * hidden

    return type("Scaled", (nn.Module,), {"forward": forward})()


def test_attributes_code_and_what_it_was_made_with_count():
    builds = [
        own,
        lambda: own(reach=3),
        lambda: own(weigh=torch.sigmoid),
        lambda: own(weigh=functools.partial(torch.clamp, min=0)),
        lambda: own(weigh=lambda hidden: hidden + 1),
        lambda: own(weigh=lambda hidden: hidden + 2),
        lambda: own(weigh=[1, {2, 3}]),
        lambda: scaled(1),
        lambda: scaled(2),
    ]
    found = [computation_sha256(build()) for build in builds]
    assert len(set(found)) == len(builds)
    assert [computation_sha256(build()) for build in builds] == found


@pytest.mark.parametrize(
    "change",
    [
        lambda model, patch: patch.setitem(globals(), "POWER", 2.0),
        lambda model, patch: patch.setitem(globals(), "decayed", lambda distance: 1 / distance),
        lambda model, patch: patch.setattr(Mix, "half", property(lambda self: self.reach)),
        lambda model, patch: patch.setattr(Mix, "slope", 2.0),
        lambda model, patch: setattr(model[1], "table", torch.zeros(3)),
        lambda model, patch: model[1].register_forward_hook(lambda module, args, output: output * 3),
        lambda model, patch: setattr(model[1], "forward", lambda hidden: hidden),
    ],
    ids=["global number", "helper", "property", "class attribute", "tensor", "hook", "forward of one module"],
)
def test_so_do_helpers_and_what_is_changed_later(change, monkeypatch):
    model = own()
    before = computation_sha256(model)
    change(model, monkeypatch)
    assert computation_sha256(model) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.model.layers[1].self_attn, "scaling", 0.3),
        lambda model: model.set_attn_implementation("sdpa"),
        lambda model: model.model.layers[0].register_forward_pre_hook(lambda module, args: None),
    ],
)
def test_so_it_is_for_models_of_a_library(change):
    model = llama()
    before = computation_sha256(model)
    change(model)
    assert computation_sha256(model) != before


class Odd:
    def to_dict(self, needed):
        raise ValueError(needed)


def test_what_cannot_be_looked_at_counts_by_its_class():
    model = own(weigh=[Odd(), torch.empty(2, device="meta")])
    assert computation_sha256(model) == computation_sha256(model) != computation_sha256(own(weigh=[]))


def test_copies_runs_and_hooks_that_are_gone_change_nothing():
    model = llama()
    before = computation_sha256(model)
    hook = model.model.layers[0].register_forward_hook(lambda module, args, output: output)
    hook.remove()
    model(torch.tensor([[1, 2, 3]]))
    model.name_or_path = model.config._name_or_path = "elsewhere"
    assert computation_sha256(copy.deepcopy(model).train()) == computation_sha256(llama()) == before
    # Python notes on a class how its objects are pickled.
    layered = own(weigh=Weigh())
    before = computation_sha256(layered)
    assert computation_sha256(pickle.loads(pickle.dumps(layered))) == before == computation_sha256(layered)  # noqa: S301


def test_it_is_the_same_in_each_process():
    program = (
        "import sys; sys.path.insert(0, 'tests'); from models import test_computation as made;"
        "own = made.own(weigh=[1, {'a', 'b', 'c'}, made.Weigh()]);"
        "print(made.computation_sha256(made.llama()), made.computation_sha256(own))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
