"""The JSON that commands print with --json."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.results.summary import average, summary_row

if TYPE_CHECKING:
    import xarray as xr

    from statesize.profiling import Plan, Profile

SCHEMA = 1


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout.

    Args:
        document: JSON values.
    """
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))


def known(value: Any) -> Any:
    """A value as JSON holds it.

    Args:
        value: A JSON value, or a number that is not finite.

    Returns:
        None for the latter.
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        "settings": attributes["settings"],
        "source": attributes["source"],
        "threads": attributes.get("threads"),
        "recipe": attributes.get("recipe"),
        "mixers": [_mixer(profile, name) for name in profile.mixers],
        "skipped": [{"name": name, "reason": reason} for name, reason in attributes["skipped"].items()],
        "result": None if result is None else str(result),
    }


def plan_document(plan: Plan, name: str, chats: int = 0) -> dict[str, Any]:
    """A plan as `statesize profile --plan --json` prints it.

    Args:
        plan: The plan.
        name: The model's name.
        chats: How many of the sequences that were read went through the tokenizer's chat template.

    Returns:
        JSON values; times in seconds, memory in bytes.
    """
    values = asdict(plan)
    skipped = [{"name": part, "reason": reason} for part, reason in plan.skipped.items()]
    return {"schema": SCHEMA, "model": name} | values | {"chats": chats, "skipped": skipped, "spectra": plan.spectra}


def _mixer(profile: Profile, name: str) -> dict[str, Any]:
    mixer = profile.mixer(name)
    row = summary_row(mixer, profile.model, name)
    return {
        "name": name,
        "kind": row["kind"],
        "units": row["units"],
        "measured": row["measured"],
        "note": str(mixer.attrs["note"]),
        "multiplicity": int(mixer.attrs["multiplicity"]),
        "state_size": row["tss"],
        "state_bytes": row["state_bytes"],
        "average_entropy": _number(row["average_entropy"]),
        "average_entropy_interval": _interval(row["average_entropy"], row["average_entropy_error"]),
        "average_tolerance": _averages(mixer, "tolerance"),
        "average_relative_tolerance": _averages(mixer, "relative_tolerance"),
        "total_entropy": _number(row["total_entropy"]),
        "total_entropy_interval": _interval(row["total_entropy"], row["total_entropy_error"]),
        "norm": _number(row["norm"]),
        "utilisation": _number(row["utilisation"]),
        "faithfulness": _number(row["faithfulness"]),
        "run_difference": _number(row["run_difference"]),
    }


def _averages(mixer: xr.Dataset, metric: str) -> list[float | None]:
    values = mixer[metric].values
    return [_number(average(mixer, values[..., index]).mean) for index in range(values.shape[-1])]


def _interval(mean: float, error: float) -> list[float] | None:
    return [mean - error, mean + error] if math.isfinite(error) else None


def _number(value: str | float) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
