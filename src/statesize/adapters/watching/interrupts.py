"""Ctrl-C comes while a model runs, never while something of it is being changed or put back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from torch import overrides


class Interrupts:
    """Whether an interrupt is let through at this moment."""

    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self._handler = handler
        self._through = False
        self._waiting = False

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal."""
        if not self._through or _switches_modes(frame):
            self._waiting = True
            return
        # What it unwinds must not be interrupted again.
        self._through = False
        self._handler(number, frame)

    @contextmanager
    def let_through(self) -> Generator[None]:
        """Let interrupts through while this is open, first one that has been waiting."""
        self._through = True
        try:
            self.deliver()
            yield
        finally:
            self._through = False

    def deliver(self) -> None:
        """Hand over an interrupt that has been waiting."""
        if self._waiting:
            self._waiting = False
            self._handler(signal.SIGINT, None)


@contextmanager
def interrupts_held() -> Generator[Interrupts]:
    """Hold back Ctrl-C while this is open, except where it is let through; one that waited is delivered at the end."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        # No handler of Python's runs in other threads, and what is ignored stays ignored.
        yield Interrupts(lambda number, frame: None)
        return
    interrupts = Interrupts(handler)
    try:
        signal.signal(signal.SIGINT, interrupts.arrived)
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, handler)
        interrupts.deliver()


def _switches_modes(frame: FrameType | None) -> bool:
    """Whether torch is about to put back a mode of its functions, which would else stay off, or come back later."""
    while frame is not None and frame.f_code.co_filename == contextlib.__file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename == overrides.__file__
