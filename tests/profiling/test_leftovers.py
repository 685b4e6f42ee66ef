"""A process that profiles model after model, some calls failing on purpose, holds what it held before."""

import gc
import itertools
import os
from collections import Counter

import pytest
import torch
from oracles.attention_models import attention_model
from oracles.tiny_families import tiny
from torch import nn

import statesize as ss

MODELS = {
    "bundled": lambda: ss.lab.zoo.load("recall-gla")[0],
    "llama": lambda: attention_model("llama"),
    "mamba2": lambda: tiny("mamba2"),
}
CALLS = (
    {"positions": 4},
    {"settings": ss.Settings(engine="dense")},
    {"settings": ss.Settings(past=6, future=6)},
    {"layers": ["no such layer"]},
    {"fail": True},
)


def held():
    """Threads, open files and live modules of this process, and hooks on all of these modules."""
    gc.collect()
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    hooks = sum(len(value) for module in modules for name, value in vars(module).items() if name.endswith("_hooks"))
    names = {"threads": "/proc/self/task", "descriptors": "/proc/self/fd"}
    return {name: len(os.listdir(place)) for name, place in names.items()} | {"modules": len(modules), "hooks": hooks}


def call(model, output, fail=False, **options):
    def failing(*_):
        raise ArithmeticError("on purpose")

    inputs = torch.randint(1, 20, (1, 14), generator=torch.Generator().manual_seed(0))
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    hook = embedding.register_forward_hook(failing) if fail else None
    try:
        ss.profile(model, inputs, output=output, **options).summary()
        return "answered"
    except (ss.StatesizeError, ArithmeticError) as error:
        return type(error).__name__
    finally:
        if hook is not None:
            hook.remove()


def all_calls(folder):
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        models = [make() for make in MODELS.values()]
    state = torch.get_rng_state()
    pairs = itertools.product(models, CALLS)
    ends = Counter(call(model, folder / str(number), **options) for number, (model, options) in enumerate(pairs))
    assert torch.equal(state, torch.get_rng_state())
    return ends


@pytest.mark.filterwarnings("ignore")
def test_calls_leave_nothing_behind(tmp_path):
    # What is loaded or compiled once is there before.
    all_calls(tmp_path / "first")
    before = held()
    assert all_calls(tmp_path / "again") == {"answered": 9, "UnknownLayerError": 3, "ArithmeticError": 3}
    assert held() == before
