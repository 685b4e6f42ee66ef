"""Measuring beside other threads: one run at a time, whose hooks and names no other thread sees."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

# One for all models: a run also holds switches and random states of torch, which the process has once.
_RUNS = threading.RLock()


@contextmanager
def one_run(model: nn.Module) -> Generator[None]:
    """Let no other thread measure while this is open; one that calls the model waits until it is as before."""
    with _RUNS:
        attributes = vars(model)
        own, forward = attributes.get("forward"), model.forward

        @functools.wraps(forward)
        def in_turn(*args: Any, **kwargs: Any) -> Any:
            # A call that waited keeps the next run waiting, which would change the model under it.
            with _RUNS:
                return forward(*args, **kwargs)

        try:
            attributes["forward"] = in_turn
            yield
        finally:
            if own is None:
                attributes.pop("forward", None)
            else:
                attributes["forward"] = own


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that does nothing in other threads than the one that makes it."""
    thread = threading.get_ident()

    def here(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == thread else None

    return here
