"""One process that profiles model after model: whatever is left behind after each call, or grows with their number."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from oracles import attention_models, recurrent_models
from torch import nn

import statesize as ss
from campaigns.soak.traces import Held, functions, hooks, replaced

# Fewer tokens than any of the small models' tables of positions hold.
LONGEST, VOCABULARY = 48, 60
ATTENTION = ("gpt2", "llama", "mistral", "gemma2", "gpt_oss", "opt", "deepseek_v3", "bloom", "gptj", "gpt_neo")
RECURRENT = (
    "mamba", "jamba", "mamba2", "falcon_h1", "qwen3_next", "kimi_linear", "rwkv", "recurrent_gemma", "minimax",
    "xlstm", "lfm2",
)  # fmt: skip
ENGINES = ("auto", "auto", "auto", "dense", "square_root", "small_state", "chunked", "streaming", "tridiagonal")


def _zoo(name: str) -> nn.Module:
    return ss.lab.zoo.load(name)[0]


def subjects() -> dict[str, Callable[[], nn.Module]]:
    """What makes the models: the bundled ones, and small random ones of the families that transformers has here."""
    bundled = {name: partial(_zoo, name) for name in (*ss.lab.zoo.names(), *ss.lab.zoo.recall_names())}
    attention = {name: partial(attention_models.attention_model, name) for name in ATTENTION}
    recurrent = {name: partial(recurrent_models.tiny_model, name) for name in RECURRENT}
    families = {name: make for name, make in (attention | recurrent).items() if name in transformers.CONFIG_MAPPING}
    return bundled | families


@dataclass
class Soak:
    """Random profile calls in this process.

    Attributes:
        seed: Of the calls.
        names: Subjects; none for all.
        calls: Calls so far.
        answered: Profiles by subject.
        refused: Calls that ended with a StatesizeError, by its first words.
        left: Hooks, functions, files and random states that were not as they had been found; should stay empty.
        samples: What the process held, by the second and the number of calls.
    """

    seed: int = 0
    names: Sequence[str] = ()
    calls: int = 0
    answered: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    left: list[str] = field(default_factory=list[str])
    samples: list[tuple[float, int, Held]] = field(default_factory=list[tuple[float, int, Held]])

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311
        every = subjects()
        self.subjects = {name: every[name] for name in self.names or every}
        self.kept: dict[str, nn.Module] = {}

    def warm_up(self) -> None:
        """Calls each subject twice, so that what is loaded or compiled once is not counted."""
        for name in self.subjects:
            self.call(name)
            self.call(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "profile"
            ss.profile(self.kept[name], torch.ones(1, 8, dtype=torch.int64), output=path)
            ss.Profile.load(path)
        self.calls = 0
        self.answered.clear()
        self.refused.clear()

    def run(self, seconds: float, every: float, on_sample: Callable[[Soak], None] = lambda _: None) -> None:
        """Calls subjects at random for so many seconds, and looks at the process every so many."""
        start = next_sample = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_sample:
                self.samples.append((now - start, self.calls, Held.now()))
                on_sample(self)
                next_sample += every
            if now - start >= seconds:
                self.samples.append((now - start, self.calls, Held.now()))
                return
            self.call(self.chance.choice(list(self.subjects)))

    def call(self, name: str) -> None:
        """Profiles one model: a new one, or one that was profiled before."""
        model = self.kept.get(name)
        if model is None or self.chance.random() < 0.3:
            with torch.random.fork_rng(devices=[]):
                model = self.kept[name] = self.subjects[name]()
        before, meant, random_state = hooks(model), functions(model), torch.get_rng_state()
        self.calls += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._profile(model, Path(folder) / "profile")
                self.answered[name] += 1
            except ss.StatesizeError as error:
                self.refused[" ".join(str(error).split()[:4])] += 1
            except _PurposeError:
                self.refused["an error in the model"] += 1
        if hooks(model) != before:
            self.left.append(f"{name}: {hooks(model) - before} hooks")
        self.left += [f"{name}: {changed} is another" for changed in replaced(meant, functions(model))]
        if not torch.equal(random_state, torch.get_rng_state()):
            self.left.append(f"{name}: torch's random state")

    def _profile(self, model: nn.Module, output: Path) -> None:
        chance = self.chance
        options: dict[str, Any] = {"positions": chance.choice((None, 4, 8)), "seed": chance.randrange(100)}
        if chance.random() < 0.3:
            options["engine"] = chance.choice(ENGINES)
        if chance.random() < 0.2:
            options |= {"past": 6, "future": 6}
        if chance.random() < 0.2:
            options["channels"] = 2
        if chance.random() < 0.05:
            options["layers"] = ["no such layer"]
        if chance.random() < 0.3:
            options["output"] = output
        generator = torch.Generator().manual_seed(chance.randrange(2**31))
        shape = (chance.randrange(1, 3), chance.randrange(8, LONGEST))
        vocabulary = next(module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding))
        inputs = torch.randint(1, min(vocabulary, VOCABULARY), shape, generator=generator)
        failing = None
        if chance.random() < 0.1:
            module = chance.choice(list(model.modules()))
            failing = module.register_forward_hook(partial(_fail, chance.randrange(4)))
        try:
            profile = ss.profile(model, inputs, **options)
        finally:
            if failing is not None:
                failing.remove()
        profile.summary()
        if "output" in options:
            ss.Profile.load(output).to_dataframe()


class _PurposeError(Exception):
    """Raised inside a model on purpose."""


def _fail(at: int, *_: object) -> None:
    if at == 0:
        raise _PurposeError


def slope(samples: list[tuple[float, int, Held]]) -> tuple[float, float]:
    """Growth of resident memory in bytes an hour over the later half, by least squares, and its standard error."""
    later = samples[len(samples) // 2 :]
    if len(later) < 3:
        return float("nan"), float("nan")
    x = torch.tensor([seconds / 3600 for seconds, _, _ in later], dtype=torch.float64)
    y = torch.tensor([float(held.resident) for _, _, held in later], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    rate = (x * y).sum() / x.square().sum()
    error = ((y - rate * x).square().sum() / (len(later) - 2) / x.square().sum()).sqrt()
    return float(rate), float(error)
