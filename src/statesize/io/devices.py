"""What torch has once for all: the device of tensors for which nobody names one, and whether gradients are on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

USERS_DEFAULT: ContextVar[AbstractContextManager[object]] = ContextVar("USERS_DEFAULT")
"""The default device of whoever called, where it is not the CPU, for code of theirs such as a model."""


def on_cpu_by_default(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function make tensors on the CPU whatever its caller says, and outside of inference mode."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        default, gradients = torch.get_default_device(), torch.is_grad_enabled()
        # The tensors of a caller's inference mode, such as a validation loop's, are never to have derivatives.
        tracked = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        token = None if default.type == "cpu" else USERS_DEFAULT.set(default)
        try:
            with nullcontext() if token is None else torch.device("cpu"), tracked, torch.set_grad_enabled(gradients):
                return function(*args, **kwargs)
        finally:
            # Ctrl-C inside the entry of `torch.no_grad` would leave them off for good.
            torch.set_grad_enabled(gradients)
            if token is not None:
                USERS_DEFAULT.reset(token)

    return called
