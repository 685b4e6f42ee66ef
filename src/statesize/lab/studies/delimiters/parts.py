"""Parts of a study of delimiters, each a Parquet file as soon as it is measured, so that a killed run can go on."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the sequences of a condition."""

    aligned: Aligned
    start: int  # index of the first sequence among all of the condition
    total: int  # number of sequences of the condition

    def __str__(self) -> str:
        last = self.start + len(self.aligned.ids) - 1
        return f"sequences {self.start} to {last} of the condition {self.aligned.condition}"

    def name(self, key: str, model: str) -> str:
        """Name of the part's file, for the run of a key and a model."""
        facts = [key, model, self.aligned.condition, self.aligned.cut, self.start]
        ending = digest(json.dumps([*facts, tokens_sha256(list(self.aligned.ids))]).encode())
        return f"{self.aligned.condition}-{self.start:06d}-{ending}"


class PartStore:
    """Measured parts of one model, as files of a folder, or in memory without a folder."""

    def __init__(self, folder: Path | None, key: str, model: str, windows: Windows) -> None:
        self.folder = folder
        self._files = None if folder is None else Parts(folder, ".parquet")
        self._key, self._model, self._windows = key, model, windows
        self._memory = dict[Part, Response]()

    def read(self, part: Part) -> Response | None:
        """The measurement of a part; None if it is missing or its file is damaged."""
        if self._files is None:
            return self._memory.get(part)
        return self._files.read(part.name(self._key, self._model), partial(decoded, part=part, windows=self._windows))

    def write(self, part: Part, response: Response) -> None:
        """Stores the measurement of a part."""
        if self._files is None:
            self._memory[part] = response
        else:
            self._files.write(part.name(self._key, self._model), encoded(self._model, part, response))


def parts_of(aligned: Aligned) -> list[Part]:
    """The sequences of a condition in parts of `SEQUENCES`, the last of which may have fewer."""
    total = len(aligned.ids)
    return [
        Part(Aligned(aligned.condition, aligned.ids[start : start + SEQUENCES], aligned.cut), start, total)
        for start in range(0, total, SEQUENCES)
    ]


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


def encoded(model: str, part: Part, response: Response) -> bytes:
    """The measurement of a part as a Parquet file with one row a sequence, head and offset."""
    import pyarrow
    import pyarrow.parquet

    events, units, offsets = response.values[METRICS[0]].shape
    per_unit: dict[str, Any] = {"layer": response.layers, "kind": response.kinds, "head": response.units}
    columns: dict[str, Any] = {
        "model": np.repeat(model, events * units * offsets),
        "condition": np.repeat(response.condition, events * units * offsets),
        "sequence": np.repeat(np.arange(part.start, part.start + events, dtype=np.int64), units * offsets),
        **{name: np.tile(np.repeat(values, offsets), events) for name, values in per_unit.items()},
        "offset": np.tile(response.offsets, events * units),
        **{metric: response.values[metric].ravel() for metric in METRICS},
    }
    content = io.BytesIO()
    parquet = cast("Any", pyarrow.parquet)
    parquet.write_table(cast("Any", pyarrow).table(columns), content, compression="zstd")
    return content.getvalue()


def decoded(content: bytes, part: Part, windows: Windows) -> Response:
    """The other direction of `encoded`."""
    import pyarrow.parquet

    table = cast("Any", pyarrow.parquet).read_table(io.BytesIO(content))
    offsets = np.array(windows.offsets)
    units = table.num_rows // (len(part.aligned.ids) * len(offsets))
    first = table.slice(0, units * len(offsets)).take(list(range(0, units * len(offsets), len(offsets))))
    names: dict[str, list[Any]] = first.select(["layer", "kind", "head"]).to_pydict()
    return Response(
        part.aligned.condition,
        offsets,
        np.isin(offsets, windows.references),
        tuple(names["layer"]),
        tuple(names["kind"]),
        tuple(names["head"]),
        {metric: table[metric].to_numpy().reshape(-1, units, len(offsets)) for metric in METRICS},
    )


def joined(responses: Sequence[Response]) -> Response:
    """One response of all parts of a condition, in order, at least one."""
    first = responses[0]
    values = {metric: np.concatenate([one.values[metric] for one in responses]) for metric in METRICS}
    return Response(first.condition, first.offsets, first.references, first.layers, first.kinds, first.units, values)
