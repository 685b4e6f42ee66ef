"""What a call may leave behind: memory, threads, file descriptors, hooks of models, functions of their source files."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.cases import resident_bytes
from statesize.adapters.replaced import source_files

_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))


@dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        resident: Bytes of resident memory, what is free but kept given back.
        threads: Threads, those of libraries included.
        descriptors: Open file descriptors.
        modules: Modules of models that are alive.
    """

    resident: int
    threads: int
    descriptors: int
    modules: int

    @classmethod
    def now(cls) -> Held:
        """What this process holds now."""
        resident = resident_bytes()
        modules = sum(issubclass(type(thing), nn.Module) for thing in gc.get_objects())
        return cls(resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), modules)


def hooks(model: nn.Module) -> int:
    """Hooks of all kinds on a model's modules and on all modules there are."""
    every = sum(
        len(value)
        for name, value in vars(nn.modules.module).items()
        if name.startswith("_global_") and hasattr(value, "__len__")
    )
    return every + sum(len(getattr(module, name)) for module in model.modules() for name in _HOOKS)


def functions(model: nn.Module) -> dict[str, Any]:
    """What the names of a model's source files mean, and what transformers' tables of attention and masks hold."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    found = {
        f"{file.__name__}.{name}": value
        for file in source_files(model)
        for name, value in vars(file).items()
        if callable(value)
    }
    for table in (AttentionInterface, AttentionMaskInterface):
        found |= {f"{table.__name__}.{name}": value for name, value in table._global_mapping.items()}
    modes = torch.overrides._get_current_function_mode_stack()
    return found | {f"mode {index}": mode for index, mode in enumerate(modes)}


def replaced(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names that mean something else than before, or that are new in a table."""
    common = [name for name in before.keys() & after.keys() if before[name] is not after[name]]
    return sorted(
        common + [name for name in after.keys() - before.keys() if "Interface." in name or name.startswith("mode ")]
    )
