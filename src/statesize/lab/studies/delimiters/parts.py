"""Parts of a study of delimiters, each a Parquet file as soon as it is measured, so that a killed run can go on."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from statesize.io.files import Parts, digest
from statesize.lab.studies.delimiters.measuring import METRICS, RELATIVE_TOLERANCE, TOLERANCE, Response
from statesize.lab.studies.delimiters.sequences import Aligned, Windows
from statesize.models.digests import tokens_sha256
from statesize.models.load import model_facts

SCHEMA = 1
SEQUENCES = 32
"""Sequences of a part. A run that is killed loses the part that it was measuring."""


def part_name(part: Aligned, key: str, model: str) -> str:
    """Name of a part's file, for the run of a key and a model."""
    facts = [key, model, part.condition, part.cut, part.start, tokens_sha256(list(part.ids))]
    return f"{part.condition}-{part.start:06d}-{digest(json.dumps(facts).encode())}"


def response_parts(folder: Path | None, model: str, windows: Windows) -> Parts[Response]:
    """Measured parts of a model, in a folder or in memory."""
    return Parts(folder, ".parquet", partial(encoded, model), partial(decoded, windows=windows))


def parts_key(model: nn.Module, windows: Windows, channels: int) -> str:
    """A digest of all that a part's numbers depend on, beside its tokens."""
    facts = {
        "schema": SCHEMA,
        **model_facts(model),
        "windows": asdict(windows),
        "channels": channels,
        "tolerances": [*METRICS, TOLERANCE, RELATIVE_TOLERANCE],
    }
    return digest(json.dumps(facts, sort_keys=True, default=repr).encode())


def encoded(model: str, response: Response) -> bytes:
    """The measurement of a part as a Parquet file with one row a sequence, head and offset."""
    import pyarrow
    import pyarrow.parquet

    events, units, offsets = response.values[METRICS[0]].shape
    per_unit: dict[str, Any] = {"layer": response.layers, "kind": response.kinds, "head": response.units}
    columns: dict[str, Any] = {
        "model": np.repeat(model, events * units * offsets),
        "condition": np.repeat(response.condition, events * units * offsets),
        "sequence": np.repeat(np.arange(response.start, response.start + events, dtype=np.int64), units * offsets),
        **{name: np.tile(np.repeat(values, offsets), events) for name, values in per_unit.items()},
        "offset": np.tile(response.offsets, events * units),
        **{metric: response.values[metric].ravel() for metric in METRICS},
    }
    content = io.BytesIO()
    parquet = cast("Any", pyarrow.parquet)
    parquet.write_table(cast("Any", pyarrow).table(columns), content, compression="zstd")
    return content.getvalue()


def decoded(content: bytes, windows: Windows) -> Response:
    """The other direction of `encoded`."""
    import pyarrow.parquet

    table = cast("Any", pyarrow.parquet).read_table(io.BytesIO(content))
    offsets = np.array(windows.offsets)
    start, last = (table["sequence"][row].as_py() for row in (0, -1))
    units = table.num_rows // ((last + 1 - start) * len(offsets))
    first = table.slice(0, units * len(offsets)).take(list(range(0, units * len(offsets), len(offsets))))
    names: dict[str, list[Any]] = first.select(["layer", "kind", "head"]).to_pydict()
    return Response(
        table["condition"][0].as_py(),
        offsets,
        np.isin(offsets, windows.references),
        tuple(names["layer"]),
        tuple(names["kind"]),
        tuple(names["head"]),
        {metric: table[metric].to_numpy().reshape(-1, units, len(offsets)) for metric in METRICS},
        start,
    )


def joined(responses: Sequence[Response]) -> Response:
    """One response of all parts of a condition, in order, at least one."""
    values = {metric: np.concatenate([one.values[metric] for one in responses]) for metric in METRICS}
    return replace(responses[0], values=values)
