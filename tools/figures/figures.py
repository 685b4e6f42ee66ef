"""The figures of the pages, from the records in results/: `largest.table` on a page is one of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from statesize.lab import zoo
from tools.figures.bounds import bounds, low_rank, other_texts
from tools.figures.families import families, fla
from tools.figures.findings import findings
from tools.figures.fixed_claims import (
    asked,
    attention_students,
    copying,
    delimiter_positions,
    longer_regularisation,
    open_gates,
    recall_mixers,
    recall_moment,
    teachers,
    truncation,
)
from tools.figures.measured_models import measured_models, records
from tools.figures.mixers import mixers
from tools.figures.names import names
from tools.figures.on_record import RESULTS, beyond, estimate, quoted, read_json, results, table
from tools.figures.published import (
    cache_budgets,
    published_caches,
    published_caches_gemma,
    published_delimiters,
    published_heads,
    recurrent_delimiters,
)
from tools.figures.seeds import fixed_decay, rank, seeds
from tools.figures.smaller_states import caches, compression, delta_rules, ess_sizes, gramian_time, mamba2_layers
from tools.figures.speed import engines, language_models, speed
from tools.figures.trained_families import architectures, compiled_training, probe_cost
from tools.figures.trends import bundled_length, length, text_series
from tools.figures.two_models import published_documents, published_models


@cache
def figures() -> dict[str, dict[str, str]]:
    """All figures as text, by document and name."""
    parts = (
        layers_campaign,
        agreement,
        largest,
        network_coverage,
        recall_moment,
        delimiter_positions,
        recall_mixers,
        attention_students,
        longer_regularisation,
        teachers,
        open_gates,
        copying,
        truncation,
        bounds,
        other_texts,
        low_rank,
        published_heads,
        published_delimiters,
        recurrent_delimiters,
        published_caches,
        published_caches_gemma,
        cache_budgets,
        published_models,
        published_documents,
        fla,
        compression,
        caches,
        delta_rules,
        gramian_time,
        ess_sizes,
        mamba2_layers,
        state_spaces,
        layers,
        architectures,
        compiled_training,
        probe_cost,
        text_series,
        engines,
        speed,
        language_models,
    )
    kept = {part.__name__: part(read_json(part.__name__)) for part in parts}
    on_record = {part.__name__: part() for part in (results, findings, quoted, beyond, seeds, rank, fixed_decay)}
    for name, part in (("length", bundled_length), ("length_architectures", length)):
        _, *lines = (RESULTS / "length" / f"{name}.jsonl").read_text("utf-8").splitlines()
        kept[name] = part([json.loads(line) for line in lines])
    made = {"names": names(), "mixers": mixers(), "bundled": bundled(), "families": families(), "asked": asked()}
    made["measured_models"] = measured_models(records())
    return kept | made | on_record


def layers(document: Mapping[str, Any]) -> dict[str, str]:
    """What layers as published recall after so many steps, and how long a step takes; the least of the lean ones."""
    # The best of several rates.
    found = {(row["mixer"], row["steps"]): row for row in sorted(document["rows"], key=lambda row: row["accuracy"])}
    rates = {
        steps: sorted({row["rate"] for row in document["rows"] if row["steps"] == steps})
        for steps in sorted({steps for _, steps in found})
    }
    fewest = min(rates)

    def learned(name: str) -> tuple[str, ...]:
        after = (f"{found[name, steps]['accuracy']:.3f}" if (name, steps) in found else "" for steps in rates)
        return f"`{name}`", *after, f"{found[name, fewest]['step_seconds'] * 1000:.0f}"

    published = map(learned, document["lean"])
    return {
        "table": table(("mixer", *(f"{steps:,} steps" for steps in rates), "ms per step"), published),
        "lean": f"{min(found[lean, fewest]['accuracy'] for lean in document['lean'].values()):.3f}",
        "runs": ", ".join(
            f"{steps:,} steps at rate {' or '.join(f'{one:g}' for one in several)}" for steps, several in rates.items()
        ),
    }


def layers_campaign(document: Mapping[str, Any]) -> dict[str, str]:
    """Random layers: how many were measured as defined, how many refused."""
    measured, refused = (f"{sum(document[kind].values()):,}" for kind in ("measured", "refused"))
    return {**_numbers(document, "draws", "seed", "wrong"), "measured": measured, "refused": refused}


def agreement(document: Mapping[str, Any]) -> dict[str, str]:
    """Engines against each other, mpmath and SLICOT."""
    found: dict[str, str] = {}
    for name in ("engine_pairs", "mpmath", "slicot"):
        part = document[name]
        found |= {f"{name}_{key}": value for key, value in _numbers(part, "compared", "outside").items()}
        if name != "slicot":
            found |= {f"{name}_{kind}": f"{part[f'largest_{kind}']:.2f}" for kind in ("values", "entropy")}
    pairs = document["engine_pairs"]
    return found | {
        **_numbers(pairs, "pairs", "operators", "families"),
        "shortest": str(pairs["lengths"][0]),
        "longest": str(pairs["lengths"][1]),
        "mpmath_operators": str(document["mpmath"]["operators"]),
        "systems": str(document["slicot"]["systems"]),
        "farthest": f"{document['slicot']['largest_difference']:.0e}",
    }


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
    ]
    return {"table": table(("engine", "operator", f"longest in {document['gigabytes']:.0f} GB", "peak / model"), rows)}


def network_coverage(document: Mapping[str, Any]) -> dict[str, str]:
    """How many intervals of networks hold what the Jacobian gives."""
    return _numbers(document["all"], "cuts", "held") | {"accuracy": f"{document['accuracy']:.0%}"}


def state_spaces(document: Mapping[str, Any]) -> dict[str, str]:
    """Smaller Mamba and Mamba-2 of transformers: what they cost and hold."""
    headings = ("model", "kept", "by", "extra bits per byte", "repeated pairs recalled")
    rows = [
        (
            row["model"],
            row["share"],
            row["method"].partition(",")[0],
            estimate(row["difference"], row["interval"], ".4f"),
            "{before:.1%} → {after:.1%}".format(**row["recall"]["repeated_bigrams"]),
        )
        for row in document["rows"]
        if row["share"] != "75%"  # those stand in the record only
    ]
    return {"table": table(headings, rows)}


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
        "command": f"`{first['command']}`",
    }


def _numbers(document: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: f"{document[name]:,}" for name in names}
