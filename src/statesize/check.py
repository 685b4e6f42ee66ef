"""Checks of arguments. Every refusal reads `NAME must be X, got Y.`, and says what to do where that is not plain.

Torch is imported where there are tensors only: a command refuses its arguments without waiting for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from statesize.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LONGEST_QUOTE = 200  # characters


def refuse(name: str, expected: str, value: object, advice: str = "", error: type[InputError] = InputError) -> NoReturn:
    """Raise that an argument must have another value; `advice` is a sentence that says what to do."""
    quote = repr(value)
    quote = quote if len(quote) <= _LONGEST_QUOTE else f"{quote[:_LONGEST_QUOTE]}…"
    raise error(f"{name} must be {expected}, got {quote}." + (f" {advice}" if advice else ""))


def require_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str, advice: str = "") -> None:
    """Refuse what is of another class; `expected` names the class in words, with its article."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {expected}, got {type(value).__name__}. {advice}".rstrip())


def whole_number(value: object) -> int | None:
    """The integer that a value is, numpy's and torch's included, or None for anything else, True and False too."""
    number = _pythons(value)
    return None if isinstance(number, bool) or not isinstance(number, Integral) else int(number)


def real_number(value: object) -> float | None:
    """The finite number that a value is, numpy's and torch's included, or None for anything else, True and False."""
    number = _pythons(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        return None
    try:
        return float(number) if math.isfinite(number) else None
    except OverflowError:
        return None


def _pythons(value: object) -> object:
    """A number of Python's own for one of numpy or torch, or for an array of one; other values as they are."""
    return cast("Any", value).item() if getattr(value, "ndim", None) == 0 else value


def require_count(name: str, value: object, least: int = 1, *, plain: bool = False, expected: str = "") -> int:
    """A whole number from `least` to below 2⁶³; where `plain`, one of Python's own. `expected` is for the message."""
    count = whole_number(value) if not plain or isinstance(value, int) else None
    if count is None or not least <= count < 2**63:
        most = "" if count is None or count < 2**63 else ", below 2**63"
        refuse(name, expected or f"a whole number of at least {least}{most}", value)
    return count


def require_index(name: str, value: object, count: int) -> int:
    """A whole number from 0 to below a count, of what `name` counts."""
    index = whole_number(value)
    if index is None or not 0 <= index < count:
        refuse(name, f"a whole number from 0 to {count - 1}", value)
    return index


def require_real(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    plain: bool = False,
    advice: str = "",
) -> float:
    """A finite number between bounds, which `above` and `below` leave out; where `plain`, one of Python's own."""
    number = real_number(value) if not plain or isinstance(value, int | float) else None
    good = number is not None and (above is None or number > above) and (least is None or number >= least)
    if number is None or not good or (below is not None and number >= below) or (most is not None and number > most):
        bounds = {"above": above, "of at least": least, "below": below, "at most": most}
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        refuse(name, f"a number {limits}" if limits else "a finite number", value, advice)
    return number


def several(name: str, argument: object, expected: str) -> Iterable[object]:
    """What can be iterated over, and is neither a text nor a dict."""
    if isinstance(argument, Iterable) and not isinstance(argument, str | bytes | dict):
        items = cast("Iterable[object]", argument)
        if getattr(items, "ndim", 1):
            return items
    refuse(name, expected, cast("object", argument))


def real_numbers(name: str, argument: object) -> list[float]:
    """A list of finite numbers of at least 0."""
    numbers: list[float] = []
    for value in several(name, argument, "a sequence of numbers such as (1e-3,)"):
        number = real_number(value)
        if number is None or number < 0:
            refuse(name, "finite and at least 0", value)
        numbers.append(number)
    return numbers


def require_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """One of some names."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        refuse(name, f"one of {', '.join(choices)}", value)
    return value


def require_path(name: str, value: object) -> Path:
    """A path: text or a path, not empty, without null characters."""
    require_kind(name, value, (str, os.PathLike), "a path")
    text = os.fspath(cast("str | os.PathLike[str]", value))
    if not text or "\0" in text:
        refuse(name, "a path, not empty and without null characters", text)
    return Path(text)


def require_floating(name: str, tensor: object, *, complex_allowed: bool = False) -> None:
    """Refuse what is no dense tensor of a floating dtype, or of a complex one where `complex_allowed`."""
    import torch

    expected = "a floating-point or complex tensor" if complex_allowed else "a floating-point tensor"
    require_kind(name, tensor, torch.Tensor, expected, "Convert it with torch.as_tensor.")
    tensor = cast("Tensor", tensor)
    is_dense = not tensor.is_nested and tensor.layout == torch.strided and not tensor.is_meta
    is_number = tensor.is_floating_point() or (complex_allowed and tensor.is_complex())
    if not (is_dense and is_number and tensor.element_size() >= 2):
        got = f"dtype {tensor.dtype}" if is_dense else f"layout {tensor.layout} on {tensor.device}"
        raise InputError(f"{name} must be {expected}, dense and of 16 bits or more, got {got}. Use .to(torch.float64).")


def broadcast_batch(parts: dict[str, torch.Size]) -> torch.Size:
    """The common batch shape of several tensors, by argument name; they are as many, and agree or are 1."""
    import numpy as np
    import torch

    try:
        common = torch.Size(np.broadcast_shapes(*parts.values()))
    except ValueError:
        common = None
    if common is None or any(len(size) != len(common) for size in parts.values()):
        argument = ", ".join(f"{name} {tuple(size)}" for name, size in parts.items())
        raise InputError(f"batch dimensions must be as many, and equal or 1, got {argument}. Add dimensions of size 1.")
    return common


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity; the message has the index of the first."""
    if not all_finite(tensor):
        import torch

        index = tuple(int(k) for k in (~torch.isfinite(tensor)).nonzero()[0])
        entry = f"{tensor[index].item()} at index {index} of shape {shape(tensor)}"
        raise InputError(f"{name} must be finite, got {entry}.")


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite, in one pass: a minimum and maximum show both."""
    import torch

    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(real.detach()))).all())


def shape(tensor: Tensor) -> str:
    """A shape as text for messages, such as "(2, 3)"."""
    return str(tuple(tensor.shape))
