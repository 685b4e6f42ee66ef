"""What the lab cannot be asked for is refused by the name of the argument."""

from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, models

import statesize as ss
from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.studies.delimiters import Delimiters
from statesize.lab.studies.engine.grid import Grid, training_runs
from statesize.lab.studies.texts.reading import TextGrid
from statesize.lab.tasks import Corpus, TextTask, build_task, encode, train_tokenizer
from statesize.lab.training import TrainingConfig
from statesize.lab.training.distillation import student_of
from statesize.lab.trends.series import find_checkpoints

MODEL = LanguageModel(ModelConfig("gla", vocabulary_size=11, width=8, heads=2, layers=1, key_size=4, positions=37))


def task(kind, **numbers):
    return build_task({"name": kind, **numbers})


def length(**options):
    return ss.lab.length(
        MODEL, torch.arange(150) % 11, **{"lengths": [4, 8], "settings": ss.Settings(future=6)} | options
    )


def text_task(train=50, held_out=23, length=8, held_out_bytes=40):
    return TextTask(torch.arange(train), torch.arange(held_out), length, held_out_bytes, 200)


# What is called, and one argument at a time that it refuses.
ALONE = [
    (TrainingConfig, {"batch_size": 0, "rate": 0.0, "warm_up": 2.0, "weight_decay": -0.1, "seed": -1, "device": 0}),
    (ModelConfig, {"mixer": "lstm", "layers": 0, "dropout": 1.0, "decay_bias": float("nan"), "normalised": 1}),
    (ModelConfig, {"mixer": "gla, sa", "smallest_step": 0.0, "positions": -1, "decay_bias": -64}),
    (partial(ModelConfig, heads=3), {"width": 100}),
    (partial(ModelConfig, mixer="gla,sa,gla"), {"layers": 4}),
    (partial(task, "mqar"), {"pairs": 33}),
    (partial(task, "mqar", pairs=6), {"length": 12}),
    (partial(task, "mqar"), {"pairs": "4"}),
    (partial(task, "selective_copying"), {"symbols": 1}),
    (partial(task, "rebinding"), {"keys": 8, "unbound": 0}),
    (partial(task, "compression"), {"tokens": True, "held_out_sequences": 0, "held_out_seed": -1}),
    (partial(train_tokenizer, ["x"]), {"vocabulary_size": 256}),
    (partial(encode, ["text"]), {"tokenizer": Tokenizer(models.BPE())}),
    (partial(TextTask.from_corpus, tokenizer=zoo.tokenizer(), length=8), {"corpus": Corpus(("text",), ())}),
    (text_task, {"length": 0, "held_out_bytes": 0}),
    (length, {"lengths": [0, 8], "excerpts": 0, "trained_length": 0}),
    (length, {"lengths": [8, 200]}),
    (zoo.load, {"name": "mamba"}),
    (zoo.record, {"name": "mamba"}),
]
CASES = [(name, partial(call, **{name: value})) for call, arguments in ALONE for name, value in arguments.items()] + [
    ("Task mqar", partial(task, "mqar", pair=4)),
    ("task name", partial(task, "mqr")),
    ("length", partial(task, "selective_copying", tokens=40)),
    ("train_tokens", partial(text_task, train=8)),
    ("held_out_tokens", partial(text_task, held_out=1)),
    ("positions", partial(length, settings=ss.Settings(positions=3))),
    ("key_size", partial(student_of, MODEL, 0)),
    ("tasks", partial(training_runs, Grid([{"name": "mqar"}], {"mixer": []}))),
    ("models", lambda: Delimiters().runs(TextGrid(models=("sa", "sa")))),
    ("checkpoints", partial(find_checkpoints, ["gla"])),
    ("checkpoints", partial(find_checkpoints, ["gla", "sa"], ("a", "b"))),
    *(("input_ids", partial(MODEL, torch.zeros(size, dtype=torch.long))) for size in ((5,), (1, 0), (1, 38))),
    *(("input_ids", partial(MODEL, torch.tensor([[first, 2]]))) for first in (0.0, 11, -1)),
    ("input_ids", partial(MODEL, [[1, 2]])),
]


@pytest.mark.parametrize(("name", "call"), CASES)
def test_what_does_not_fit_is_refused_by_name(name, call):
    with pytest.raises(InputError, match=rf"^{name} (must .*got |cannot be built)"):
        call()
