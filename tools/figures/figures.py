"""The figures of the pages, from the records in results/: `bounds.table` on a page is one of these."""

from __future__ import annotations

import json
from functools import cache

from statesize.lab import zoo
from tools.figures.bounds import bounds, other_texts
from tools.figures.families import families, fla
from tools.figures.fields import fields
from tools.figures.findings import findings
from tools.figures.measured_models import measured_models, records
from tools.figures.on_record import RESULTS, estimate, quoted, read_json, table
from tools.figures.speed import speed
from tools.figures.trends import length


@cache
def figures() -> dict[str, dict[str, str]]:
    """All figures as text, by document and name; a record whose command is gone has its own under `shown`."""
    parts = (bounds, other_texts, fla, speed)
    kept = {part.__name__: part(read_json(part.__name__)) for part in parts}
    for path in RESULTS.glob("*/*.json"):
        if "shown" in (document := json.loads(path.read_text("utf-8"))):
            kept[path.stem] = document["shown"]
    _, *lines = (RESULTS / "length" / "length.jsonl").read_text("utf-8").splitlines()
    kept["length"] = length([json.loads(line) for line in lines])
    made = (findings, quoted, bundled, families, fields)
    return kept | {part.__name__: part() for part in made} | {"measured_models": measured_models(records())}


def bundled() -> dict[str, str]:
    """The bundled models and their figures on the bundled documents, from their own records."""
    rows: list[tuple[str, ...]] = []
    for name in zoo.names():
        record = zoo.record(name)
        read = record["bundled_documents"]
        worth = read["context_worth"]
        figures = (f"{record['parameters']:,}", f"{read['loss']:.2f}", f"{read['bits_per_byte']:.2f}")
        rows.append((f"`{name}`", *figures, estimate(worth["mean"], worth["interval"], ".2f")))
    return {"table": table(("model", "parameters", "nats per token", "bits per byte", "worth of the context"), rows)}
