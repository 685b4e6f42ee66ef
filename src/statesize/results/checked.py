"""Checks of a stored profile before anything uses it: anybody may have written it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from statesize.adapters.captured import SHARED
from statesize.check import plain_number
from statesize.results.arrays import ALONG
from statesize.results.fields import BY_SEQUENCE, FIELDS, SINKS, UNITS, mixer_dims

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
}
"""In which a model may make an operator, by the names that profiles use."""

# Whole numbers that float64 holds.
_LARGEST = 2**53

Kind = Callable[[object], bool]


def _text(value: object) -> bool:
    return isinstance(value, str)


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _number(value: object) -> bool:
    return plain_number(value) and cast("float", value) >= 0


def _several(kind: Kind) -> Kind:
    return lambda value: isinstance(value, list) and all(map(kind, cast("list[object]", value)))


def _different(value: object) -> bool:
    return _several(_text)(value) and len(set(cast("list[str]", value))) == len(cast("list[str]", value))


def _named(kind: Kind) -> Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, cast("dict[str, object]", value).values()))


def _recipe(value: object) -> bool:
    return value is None or (isinstance(value, dict) and _several(_text)(cast("dict[str, Any]", value).get("command")))


_NODE: dict[str, Kind] = {
    "name": lambda value: isinstance(value, str) and "/" not in value,
    "sha256": _text,
    "attributes": _named(lambda value: True),
    "dims": _named(_different),
}
_ROOT: dict[str, Kind] = {
    **dict.fromkeys(("model", "weights_sha256", "run_sha256", "tokens_sha256"), _text),
    **dict.fromkeys(("tolerances", "relative_tolerances"), _several(_number)),
    **dict.fromkeys(("skipped", "versions"), _named(_text)),
    **dict.fromkeys(("settings", "source"), _named(lambda value: True)),
    "special_tokens": _named(_whole),
    "mixers": _several(_text),
    "recipe": _recipe,
    "schema": _whole,
    "threads": _whole,
    "seconds": _number,
}
_MIXER: dict[str, Kind] = {
    **dict.fromkeys(("kind", "note", "cache", "engine"), _text),
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "multiplicity": lambda value: _whole(value) and value != 0,
    "stratum_sizes": _several(_whole),
}
_TOKENS = {"token_ids": "i", "tokens": "U", "special": "b"}


def check_nodes(listed: object) -> None:
    """Refuse what lists no root and mixers as `statesize.results.store` writes them, by a ValueError."""
    nodes = cast("list[dict[str, Any]]", listed if _several(lambda node: isinstance(node, dict))(listed) else [])
    for node in nodes:
        _check_attributes("a node", node, _NODE)
    _require("the profile", "nodes", bool(nodes) and nodes[0]["name"] == "")


def check_root(root: xr.Dataset) -> None:
    """Refuse the tokens and attributes of a profile that would break what reads them, by a ValueError."""
    _check_attributes("the profile", root.attrs, _ROOT)
    variables = {name: ((ALONG, "token"), kind) for name, kind in _TOKENS.items()} | {"length": ((ALONG,), "i")}
    _check_variables("the profile", root, variables)
    lengths = root["length"].values
    _require("the profile", "length", bool(((lengths >= 1) & (lengths <= root.sizes["token"])).all()))


def check_mixer(name: str, node: xr.Dataset, root: xr.Dataset) -> None:
    """Refuse a mixer that would, likewise; `root` is that of its profile."""
    _check_attributes(name, node.attrs, _MIXER)
    units = [unit for unit in UNITS if unit in node.sizes]
    _require(name, "dimensions", len(units) == 1 and node.sizes.get(ALONG) == root.sizes[ALONG])
    unit = units[0]
    whole = {unit, "position", "stratum"}
    variables = {variable: (dims, "i" if variable in whole else "f") for variable, dims in mixer_dims(unit).items()}
    _check_variables(name, node, variables)
    for variable in (*FIELDS, *BY_SEQUENCE, *SINKS):
        values = node[variable].values
        _require(name, variable, bool((np.isnan(values) | ((values >= 0) & (values < np.inf))).all()))
    positions, chosen, sizes = node["position"].values, node[unit].values, np.array(node.attrs["stratum_sizes"], int)
    _require(name, "position", _ascending(positions, root.sizes["token"] + 1))
    _require(name, unit, _ascending(chosen, int(sizes.sum())))
    strata = node["stratum"].values
    inside = bool(((strata >= 0) & (strata < len(sizes))).all())
    measured = np.bincount(strata, minlength=len(sizes)) if inside else sizes + 1
    _require(name, "stratum", bool(((measured >= 1) & (measured <= sizes)).all()))


def check_names(root: xr.Dataset, nodes: Mapping[str, xr.Dataset]) -> None:
    """Refuse a profile that does not hold the mixers that it names, or holds others, by a ValueError."""
    mixers = cast("list[str]", root.attrs["mixers"])
    unknown = set(nodes) - set(mixers) - {name + SHARED for name in mixers}
    if unknown or not set(nodes).issuperset(mixers) or len(set(mixers)) < len(mixers):
        raise ValueError("it does not hold the mixers that it names")


def _require(name: str, part: str, good: bool) -> None:
    if not good:
        raise ValueError(f"{part!r} of {name} is not what statesize writes")


def _check_attributes(name: str, attributes: Mapping[Any, object], kinds: Mapping[str, Kind]) -> None:
    for attribute, kind in kinds.items():
        _require(name, attribute, kind(attributes.get(attribute)))


def _check_variables(name: str, node: xr.Dataset, variables: Mapping[str, tuple[tuple[str, ...], str]]) -> None:
    for variable, (dims, kind) in variables.items():
        there = variable in node.variables
        _require(name, variable, there and node[variable].dims == dims and node[variable].dtype.kind == kind)


def _ascending(values: np.ndarray[Any, Any], end: int) -> bool:
    """Whether there are values, from 0 to below `end`, each larger than the one before."""
    return values.size > 0 and values[0] >= 0 and values[-1] < end and bool((np.diff(values) > 0).all())
