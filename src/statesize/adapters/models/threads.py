"""Measuring beside other threads: one run at a time, whose hooks and names no other thread sees."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

# One for all models: a run also holds switches and random states of torch, which the process has once.
ONE_RUN = threading.RLock()


def in_turn(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a model that runs: other threads that call it wait until the model is as before."""

    @functools.wraps(forward)
    def wait(*args: Any, **kwargs: Any) -> Any:
        # A call that waited keeps the next run waiting, which would change the model under it.
        with ONE_RUN:
            return forward(*args, **kwargs)

    return wait


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that does nothing in other threads than the one that makes it."""
    thread = threading.get_ident()

    def here(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == thread else None

    here.thread = thread  # pyright: ignore[reportFunctionMemberAccess]
    return here
