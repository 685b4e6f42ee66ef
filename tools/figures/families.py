"""The figures of the page about families: models of transformers, layers of flash-linear-attention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """One family of models, or a class beyond the registry of causal language models, as a tiny random model of it."""

    name: str  # its `model_type` in transformers, or what the class is
    model: str  # the class
    registered: bool  # whether it is a `model_type` of the registry
    status: str  # "measured"; "refused"; "wrong", where an oracle disagrees; "not built"
    mixers: dict[str, int]  # number of layers by kind of mixer
    maps: float | None  # largest difference of T from the attention maps that the model returns; None without such maps
    # Largest difference of T from what the model's own code makes of impulses; None where no part of it carries the
    # values alone.
    impulses: float | None
    gated: bool  # whether the impulses show rows of T up to a factor each, because an output gate follows
    logits: float | None  # largest difference of its logits under observation
    reason: str  # why it, or a part of it, is not measured
    # Status by version of transformers, of the versions that were tried and have it, the oldest first.
    versions: dict[str, str]


TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("families.json").read_text(encoding="utf-8"))
FAMILIES = tuple(Family(**family) for family in TABLE["families"])
"""What the sweep found, in the order of names, those of the registry first."""


def families() -> dict[str, str]:
    """How many families of transformers are measured, of which not all mixers, and which are not."""
    measured = [family for family in FAMILIES if family.status == "measured"]
    inside = [family for family in measured if family.registered]
    registered = [family for family in FAMILIES if family.registered]
    refused = [family.name for family in registered if family not in measured]
    versions = [
        f"{with_it.count('measured')} of {len(with_it)} (with {version})"
        for version in max((tuple(family.versions) for family in FAMILIES), key=len)
        for with_it in [[family.versions[version] for family in registered if version in family.versions]]
    ]
    judged = [family.maps if family.impulses is None else family.impulses for family in measured]
    return {
        "measured": str(len(inside)),
        "all": str(len(registered)),
        "transformers": TABLE["transformers"],
        "farthest": f"{max(one for one in judged if one is not None):.0e}",
        "partly": ", ".join(f"`{family.name}`" for family in inside if family.reason),
        "refused": ", ".join(f"`{name}`" for name in refused),
        "versions": ", ".join(versions),
    }


def fla(document: Mapping[str, Any]) -> dict[str, str]:
    """Layers of flash-linear-attention: how many agree with references and with kernels."""
    layers: dict[str, Any] = document["layers"]
    agreeing = {"references": 0, "kernels": 0}
    for layer in layers.values():
        for by, left_out in (("references", False), ("kernels", layer["in_torch"])):
            both = [layer[f"{by} {length}"] for length in (32, 72)]
            whole = all(not one["reason"] and one["units"] > 1 and one["faithfulness"] <= 2e-6 for one in both)
            agreeing[by] += whole and not left_out and not layer["flash_attention"]
    return {by: str(count) for by, count in agreeing.items()}
