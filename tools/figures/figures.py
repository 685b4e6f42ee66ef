"""The figures of the pages, from the records in results/: `largest.table` on a page is one of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from statesize.lab import zoo
from statesize.spectra.dispatch import ENGINES
from tools.figures.bounds import bounds, other_texts
from tools.figures.caches import published_caches, published_caches_gemma
from tools.figures.families import families, fla
from tools.figures.fields import fields
from tools.figures.findings import findings
from tools.figures.fixed_claims import asked
from tools.figures.measured_models import measured_models, records
from tools.figures.mixers import mixers
from tools.figures.names import names
from tools.figures.on_record import RESULTS, estimate, quoted, read_json, table
from tools.figures.seeds import fixed_decay, rank, seeds
from tools.figures.speed import engines, speed
from tools.figures.trends import bundled_length, length


@cache
def figures() -> dict[str, dict[str, str]]:
    """All figures as text, by document and name; a record whose command is gone has its own under `shown`."""
    parts = (
        *(layers_campaign, agreement, largest, bounds, other_texts),
        *(published_caches, published_caches_gemma, fla, engines, speed),
    )
    kept = {part.__name__: part(read_json(part.__name__)) for part in parts}
    for path in RESULTS.glob("*/*.json"):
        if "shown" in (document := json.loads(path.read_text("utf-8"))):
            kept[path.stem] = document["shown"]
    for name, part in (("length", bundled_length), ("length_architectures", length)):
        _, *lines = (RESULTS / "length" / f"{name}.jsonl").read_text("utf-8").splitlines()
        kept[name] = part([json.loads(line) for line in lines])
    on_record = {part.__name__: part() for part in (findings, quoted, seeds, rank, fixed_decay)}
    made = {
        "names": names(),
        "mixers": mixers(),
        "fields": fields(),
        "bundled": bundled(),
        "families": families(),
        "asked": asked(),
    }
    made["measured_models"] = measured_models(records())
    return kept | made | on_record


def layers_campaign(document: Mapping[str, Any]) -> dict[str, str]:
    """Random layers: how many were measured as defined, how many refused."""
    return {kind: f"{sum(document[kind].values()):,}" for kind in ("measured", "refused")}


def agreement(document: Mapping[str, Any]) -> dict[str, str]:
    """How many answers were compared, and how many lie outside their bounds."""
    names = [(part, name) for part in ("engine_pairs", "mpmath") for name in ("compared", "outside")]
    return {f"{part}_{name}": f"{document[part][name]:,}" for part, name in names}


def largest(document: Mapping[str, Any]) -> dict[str, str]:
    """The longest operator of each engine, and its memory against what the engine expects of itself."""
    rows = [
        (
            f"`{row['engine']}`",
            row["operator"],
            f"{row['length']:,}",
            ", ".join(f"{one['peak'] / one['model']:.2f} at {one['length']:,}" for one in row["peaks"]),
        )
        for row in document["rows"]
        if row["engine"] in ENGINES
    ]
    return {"table": table(("engine", "operator", f"longest in {document['gigabytes']:.0f} GB", "peak / model"), rows)}


def bundled() -> dict[str, str]:
    """The bundled models: how they were trained and their figures on the bundled documents, from their own records."""
    records = {name: zoo.record(name) for name in zoo.names()}
    rows: list[tuple[str, ...]] = []
    for name, record in records.items():
        read = record["bundled_documents"]
        worth = read["context_worth"]
        figures = (f"{record['parameters']:,}", f"{read['loss']:.2f}", f"{read['bits_per_byte']:.2f}")
        rows.append((f"`{name}`", *figures, estimate(worth["mean"], worth["interval"], ".2f")))
    first = records["sa"]
    return {
        "table": table(("model", "parameters", "nats per token", "bits per byte", "worth of the context"), rows),
        "tokens": f"{first['train_tokens'] / 1e6:.1f}",
        # --compiled was an option for speed alone.
        "command": f"`{first['command'].removesuffix(' --compiled')}`",
    }
