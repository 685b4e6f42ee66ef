"""The device on which tensors are made where nobody names one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_users: ContextVar[torch.device | None] = ContextVar("_users", default=None)


def on_cpu_by_default(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function make its tensors on the CPU whatever `torch.set_default_device` says."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        default = torch.get_default_device()
        if default.type == "cpu":
            return function(*args, **kwargs)
        token = _users.set(default)
        try:
            with torch.device("cpu"):
                return function(*args, **kwargs)
        finally:
            _users.reset(token)

    return called


def users_default() -> AbstractContextManager[object]:
    """The default device of whoever called, for code of theirs such as a model."""
    default = _users.get()
    return nullcontext() if default is None else default
