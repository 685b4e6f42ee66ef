"""The JSON that commands print with --json."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statesize.io.text import printable
from statesize.results.fields import COUNTS
from statesize.results.summary import average, group_rows, summary_row

if TYPE_CHECKING:
    import xarray as xr

    from statesize.profiling import Plan, Profile

SCHEMA = 1


# Figures of a mixer that a document holds by the names of the summary; those in _ESTIMATED with an interval.
_FIGURES = (
    "kind",
    "units",
    "measured",
    "state_bytes",
    "norm",
    "state_utilisation",
    "ceiling_utilisation",
    "sink_share",
    "sink_position",
    "sink_entropy",
    "sinkless_entropy",
    "faithfulness",
    "run_difference",
)
_ESTIMATED = ("average_entropy", "total_entropy", "readout_total_entropy")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(printable(json.dumps(document, ensure_ascii=False, allow_nan=False)))


def known(value: Any) -> Any:
    """A value as JSON holds it: None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def profile_document(profile: Profile, result: Path | None) -> dict[str, Any]:
    """A profile, saved as `result` or not at all, as `statesize profile --json` prints it."""
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
        "groups": [{key: known(value) for key, value in row.items()} for row in group_rows(profile)],
        "skipped": [{"name": name, "reason": reason} for name, reason in attributes["skipped"].items()],
        "result": None if result is None else str(result),
    }


def plan_document(plan: Plan, name: str, chats: int = 0) -> dict[str, Any]:
    """A plan as `statesize profile --plan --json` prints it; so many `chats` went through the tokenizer's template."""
    values = asdict(plan)
    skipped = [{"name": part, "reason": reason} for part, reason in plan.skipped.items()]
    return {"schema": SCHEMA, "model": name} | values | {"chats": chats, "skipped": skipped, "spectra": plan.spectra}


def _mixer(profile: Profile, name: str) -> dict[str, Any]:
    mixer = profile.mixer(name)
    row: dict[str, Any] = {**summary_row(mixer, profile.model, name, profile.group(name))}
    return {
        "name": name,
        "note": str(mixer.attrs["note"]),
        "multiplicity": int(mixer.attrs["multiplicity"]),
        "state_size": row["tss"],
        **{figure: known(row[figure]) for figure in (*_FIGURES, *_ESTIMATED)},
        **{f"{figure}_interval": _interval(row[figure], row[f"{figure}_error"]) for figure in _ESTIMATED},
        **{f"average_{counts.name}": _averages(mixer, counts.name) for counts in COUNTS},
    }


def _averages(mixer: xr.Dataset, metric: str) -> list[float | None]:
    values = mixer[metric].values
    return [known(average(mixer, values[..., index]).mean) for index in range(values.shape[-1])]


def _interval(mean: float, error: float) -> list[float] | None:
    return [mean - error, mean + error] if math.isfinite(error) else None
