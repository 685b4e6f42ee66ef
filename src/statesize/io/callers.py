"""Whose line a warning names."""

from __future__ import annotations

import inspect
import warnings

from statesize.errors import StatesizeWarning


def warn_caller(message: str) -> None:
    """Warn at the line from which statesize was called, however many frames of decorators lie between."""
    frame, level, between = inspect.currentframe(), 1, ("statesize", "torch", "contextlib")
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] in between:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, StatesizeWarning, stacklevel=level - 1 if frame is None else level)
