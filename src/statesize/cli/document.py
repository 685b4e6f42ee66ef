"""The JSON that commands print with --json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from statesize.profiling.summary import average, summary_row, unit_dim

if TYPE_CHECKING:
    from statesize.profiling import Profile

SCHEMA = 1


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout.

    Args:
        document: JSON values.
    """
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))


def profile_document(profile: Profile, result: Path | None) -> dict[str, Any]:
    """A profile as `statesize profile --json` prints it.

    Args:
        profile: The profile.
        result: Where it was saved.

    Returns:
        JSON values; what is not known is None.
    """
    attributes = profile.attributes
    return {
        "schema": SCHEMA,
        "model": profile.model,
        "sequences": int(profile.tokens.sizes["sequence"]),
        "tokens": int(profile.tokens["length"].sum()),
        "tolerances": attributes["tolerances"],
        "relative_tolerances": attributes["relative_tolerances"],
        "mixers": [_mixer(profile, name) for name in profile.mixers],
        "skipped": [{"name": name, "reason": reason} for name, reason in attributes["skipped"].items()],
        "result": None if result is None else str(result),
    }


def _mixer(profile: Profile, name: str) -> dict[str, Any]:
    mixer = profile.mixer(name)
    row = summary_row(mixer, profile.model, name)
    units, multiplicity = mixer.sizes[unit_dim(mixer)], int(mixer.attrs["multiplicity"])
    itemsize = getattr(torch, str(mixer.attrs["dtype"])).itemsize
    return {
        "name": name,
        "kind": row["kind"],
        "units": units,
        "multiplicity": multiplicity,
        "state_size": row["tss"],
        "state_bytes": int(row["tss"]) * units * multiplicity * itemsize,
        "average_entropy": _number(row["average_entropy"]),
        "average_tolerance": [_number(value) for value in average(mixer, "tolerance")],
        "average_relative_tolerance": [_number(value) for value in average(mixer, "relative_tolerance")],
        "total_entropy": _number(row["total_entropy"]),
        "norm": _number(row["norm"]),
        "utilisation": _number(row["utilisation"]),
        "faithfulness": None,
    }


def _number(value: str | float) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
