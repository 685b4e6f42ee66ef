"""Random calls of what is made of settings: configurations of models and of training, objectives, tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from campaigns.fuzz.arguments import whole
from campaigns.fuzz.call import Call
from campaigns.fuzz.hostile import Source
from statesize.lab import mixers, tasks, training

MOST = 10**500
_SIZE = 2**31 - 1
_SIZES = ("vocabulary_size", "width", "heads", "layers", "key_size", "mlp_factor")
Judge = Callable[[Any], bool]
Form = tuple[Callable[..., Any], dict[str, Any], dict[str, Judge]]


def _count(least: int, most: int = MOST) -> Judge:
    return lambda value: type(value) is int and least <= value <= most


def _number(low: float, high: float, ends: tuple[bool, bool] = (True, True)) -> Judge:
    def judge(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == math.inf:
            return False
        return (low < value or (ends[0] and value == low)) and (value < high or (ends[1] and value == high))

    return judge


def _task_count(least: int) -> Judge:
    return lambda value: whole(value, least, MOST)


def _task_number(low: float, high: float) -> Judge:
    """A number above `low`, one of numpy's or torch's without dimensions too."""

    def judge(value: Any) -> bool:
        held = getattr(value, "ndim", 1) == 0 and str(getattr(value, "device", "cpu")) != "meta"
        return _number(low, high, (False, True))(value.item() if held else value)

    return judge


def _any_text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


_POSITIVE = _number(0, math.inf, (False, False))
_WEIGHT = _number(0, math.inf, (True, False))
_HELD_OUT = {"held_out_sequences": _task_count(1), "held_out_seed": _task_count(0)}
FORMS: dict[str, Form] = {
    "ModelConfig": (
        mixers.ModelConfig,
        {"width": 8, "heads": 2, "layers": 2, "key_size": 4, "vocabulary_size": 16},
        {
            "mixer": _any_text,
            **dict.fromkeys(_SIZES, _count(1, _SIZE)),
            "positions": _count(0, _SIZE),
            "dropout": _number(0, 1, (True, False)),
            "decay_bias": _number(-64, 64, (False, False)),
            "smallest_step": _POSITIVE,
            "largest_step": _POSITIVE,
            "tied": _truth,
            "normalised": _truth,
        },
    ),
    "TrainingConfig": (
        training.TrainingConfig,
        {},
        {
            "steps": _count(0),
            **{name: _count(1) for name in ("batch_size", "evaluate_every", "checkpoint_every")},
            "rate": _POSITIVE,
            "clip": _POSITIVE,
            "warm_up": _number(0, 1),
            "weight_decay": _WEIGHT,
            "seed": lambda value: type(value) is int and 0 <= value < 2**63,
            "device": _any_text,
            "identity_weight": _WEIGHT,
            "utilisation_weight": _WEIGHT,
            "target_utilisation": _number(0, 1),
        },
    ),
    "Regularisation": (
        training.Regularisation,
        {},
        {
            "identity_weight": _WEIGHT,
            "utilisation_weight": _WEIGHT,
            "target_utilisation": _number(0, 1),
            **{name: _count(1) for name in ("sequences", "units", "positions")},
        },
    ),
    "Objective": (training.Objective, {}, dict.fromkeys(("operators", "hidden", "logits"), _WEIGHT)),
    "MQAR": (
        tasks.MQAR,
        {"pairs": 2, "length": 9, "vocabulary_size": 8},
        {
            **dict.fromkeys(("pairs", "length", "vocabulary_size"), _task_count(1)),
            "query_share": lambda value: whole(value, 1, 1) or _task_number(0, 1)(value),
            "gap_power": lambda value: whole(value, -MOST, MOST) or _task_number(-math.inf, math.inf)(value),
            **_HELD_OUT,
        },
    ),
    "Compression": (
        tasks.Compression,
        {"tokens": 3},
        {**dict.fromkeys(("tokens", "symbols"), _task_count(2)), **_HELD_OUT},
    ),
    "Rebinding": (
        tasks.Rebinding,
        {"documents": 1, "pairs": 2, "unbound": 1, "keys": 4},
        {**dict.fromkeys(("documents", "pairs", "unbound", "keys"), _task_count(1)), **_HELD_OUT},
    ),
    "SelectiveCopying": (
        tasks.SelectiveCopying,
        {"tokens": 2, "length": 9, "symbols": 4},
        {**dict.fromkeys(("tokens", "length", "symbols"), _task_count(1)), **_HELD_OUT},
    ),
}  # fmt: skip
"""Constructors, arguments that are good, and which others are."""

_TASKS = {
    "mqar": "MQAR",
    "compression": "Compression",
    "rebinding": "Rebinding",
    "selective_copying": "SelectiveCopying",
}


def settings_call(source: Source) -> Call:
    """A constructor with one argument or two that may be anything."""
    name = source.chance.choice(list(FORMS))
    make, good, judges = FORMS[name]
    changed = {
        field: source.no_number() for field in source.chance.sample(list(judges), source.chance.choice((0, 1, 1, 2)))
    }
    wrong = not all(judges[field](value) for field, value in changed.items())
    named = next((key for key, value in _TASKS.items() if value == name), None)
    by_name = named is not None and source.maybe(0.3)

    def run() -> Any:
        return tasks.build_task({"name": named, **good, **changed}) if by_name else make(**{**good, **changed})

    def check(found: Any) -> list[str]:
        if isinstance(found, tasks.SyntheticTask):
            again = tasks.build_task(found.settings())
            return [] if again == found else [f"{again} is not {found}"]
        return []

    refusal = "always" if wrong else "maybe" if changed else "never"
    return Call(run, check, refusal, tuple(judges), f"{name} {changed!r:.150}")


def task_call(source: Source) -> Call:
    """What a task is asked: batches, held-out sequences; and what tells tasks and mixers by name."""
    name = source.chance.choice(list(_TASKS.values()))
    make, good, _ = FORMS[name]
    size = source.no_number() if source.maybe(0.6) else source.whole(1, 4)
    value, other = source.no_number(), source.no_number()
    task: Any = make(**good)
    good_size = whole(size, 1, 10**4)
    kinds: dict[str, tuple[Callable[[], Any], bool, tuple[str, ...]]] = {
        "sample": (lambda: task.sample(2, torch.Generator().manual_seed(0)), True, ()),
        "held_out": (lambda: next(iter(task.held_out(size))), good_size, ("batch_size",)),
        "build_task": (lambda: tasks.build_task(value), False, ("settings", "task", "name")),
        "unknown task": (lambda: tasks.build_task({"name": value, "pairs": other}), False, ("name",)),
        "a task": (lambda: tasks.task(value)(other), False, ("name", "task")),
        "a mixer": (lambda: mixers.mixer(value)(other), False, ("name", "mixer")),
        "names": (lambda: (tasks.task.names(), mixers.mixer.names()), True, ()),
    }
    kind = source.chance.choice(list(kinds))
    run, fine, names = kinds[kind]

    def check(found: Any) -> list[str]:
        if kind in {"sample", "held_out"}:
            inputs, targets = found
            wrong = inputs.shape != targets.shape or inputs.min() < 0 or inputs.max() >= task.vocabulary_size
            return ["a token is none of the task's"] if wrong else []
        return []

    return Call(
        run, check, "never" if fine else "always", names, f"{kind} {name} {value!r:.40} {other!r:.40} {size!r:.40}"
    )
