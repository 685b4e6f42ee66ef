"""Results as JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast


def json_values(value: Any) -> Any:
    """A dataclass by its `to_dict` or its fields, lists for tuples and arrays, and None for what is not finite."""
    if hasattr(value, "to_dict"):
        return json_values(value.to_dict())
    if is_dataclass(value):
        return {field.name: json_values(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: json_values(entry) for name, entry in cast("Mapping[str, Any]", value).items()}
    if hasattr(value, "tolist"):
        return json_values(value.tolist())
    if isinstance(value, list | tuple):
        return [json_values(entry) for entry in cast("Sequence[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
