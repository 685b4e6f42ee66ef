"""The figures of the page about families: models of transformers, layers of flash-linear-attention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from statesize.adapters.sources import swept
from tools.figures.on_record import table


def families() -> dict[str, str]:
    """Which families of transformers are measured, by the kinds of their mixers; a star: not all of their mixers."""
    found = swept()
    measured = found.of("measured")
    inside = [family for family in measured if family.registered]
    registered = [family for family in found.families if family.registered]
    by_kind: dict[str, list[str]] = {}
    for family in inside:
        names = by_kind.setdefault(", ".join(sorted(family.mixers)), [])
        names.append(family.name + " \\*" * bool(family.reason))
    rows = sorted(by_kind.items(), key=lambda row: -len(row[1]))
    refused = [
        (family.name if family.registered else f"{family.name} (beyond the registry)", _first_sentence(family.reason))
        for family in found.families
        if family not in measured
    ]
    versions = [
        f"{with_it.count('measured')} of {len(with_it)} (with {version})"
        for version in found.versions
        for with_it in [[family.versions[version] for family in registered if version in family.versions]]
    ]
    judged = [family.maps if family.impulses is None else family.impulses for family in measured]
    return {
        "measured": str(len(inside)),
        "all": str(len(registered)),
        "beyond": str(len(measured) - len(inside)),
        "transformers": found.transformers,
        "farthest": f"{max(one for one in judged if one is not None):.0e}",
        "table": table(("mixers", "families"), [(kinds, ", ".join(names)) for kinds, names in rows]),
        "refused": table(("not measured", "why"), refused),
        "versions": ", ".join(versions),
    }


def _first_sentence(reason: str) -> str:
    return reason.partition(". ")[0].removesuffix(".").replace("|", "\\|").replace("<", "&lt;") + "."


def fla(document: Mapping[str, Any]) -> dict[str, str]:
    """Layers of flash-linear-attention: how many agree with references and kernels, and why some are missing."""
    layers: dict[str, Any] = document["layers"]
    runs = [f"{by} {length}" for by in ("references", "kernels") for length in (32, 72)]
    measured: list[str] = []
    causes: list[tuple[str, str, str]] = []
    agreeing = {"references": 0, "kernels": 0}
    for name, layer in layers.items():
        if any(layer[run]["kind"] for run in runs):
            measured.append(layer["class"])
        reasons: dict[str, list[str]] = {}
        for run in runs:
            if layer[run]["reason"]:
                reasons.setdefault(_cause(layer[run]["reason"]), []).append(run)
        causes += [
            (name, "all" if len(where) == len(runs) else ", ".join(where), reason) for reason, where in reasons.items()
        ]
        for by, left_out in (("references", False), ("kernels", layer["in_torch"])):
            both = [layer[f"{by} {length}"] for length in (32, 72)]
            whole = all(not one["reason"] and one["units"] > 1 and one["faithfulness"] <= 2e-6 for one in both)
            agreeing[by] += whole and not left_out and not layer["flash_attention"]
    ratios = [row["ratio"] for row in document["time"]["capture"]]
    versions = document["made"]["versions"]
    return {
        "classes": ", ".join(f"`{name}`" for name in sorted(set(measured))),
        "causes": table(("layer", "where", "what was said"), causes),
        "capture": f"{min(ratios):.1f} to {max(ratios):.1f}",
        "versions": f"fla {versions['flash-linear-attention']}, triton {versions['triton']}, torch {versions['torch']}",
        "rwkv7": f"{layers['rwkv7']['kernels 72']['faithfulness']:.0e}",
        **{by: str(count) for by, count in agreeing.items()},
    }


def _cause(reason: str) -> str:
    """The first sentence, without the class of the error and the place in the code."""
    return (
        re.sub(r"^\w+Error: ", "", reason).partition(";")[0].partition(". ")[0].partition(" (")[0] or "not implemented"
    )
