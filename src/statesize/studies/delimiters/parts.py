"""Parts of a study of delimiters, each a Parquet file as soon as it is measured, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from statesize.files import replace_file
from statesize.loading.digests import model_facts, tokens_sha256, weights_sha256
from statesize.studies.delimiters.measuring import METRICS, RELATIVE_TOLERANCE, TOLERANCE, Response
from statesize.studies.delimiters.sequences import Aligned, Windows

SCHEMA = 1
SEQUENCES = 32
"""Of a part. What is lost when a run is killed is the part that it was at."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the sequences of a condition.

    Attributes:
        aligned: The sequences.
        start: Index of the first among all of the condition.
        total: How many these are.
    """

    aligned: Aligned
    start: int
    total: int


@dataclass(frozen=True)
class Parts:
    """The parts of one model that are measured.

    Attributes:
        folder: Where they lie; those of other models and settings may be there too.
        model: What tables call the model.
        key: Digest of all that their numbers depend on, beside the tokens.
        windows: Past and future of each H_i.
    """

    folder: Path
    model: str
    key: str
    windows: Windows

    def holds(self, part: Part) -> bool:
        """Whether a part was measured, and its file is whole.

        Args:
            part: The sequences.

        Returns:
            If so, `read` gives it.
        """
        return self._content(part) is not None

    def read(self, part: Part) -> Response | None:
        """What was measured of a part.

        Args:
            part: The sequences.

        Returns:
            The response, or None where there is none or its file is damaged.
        """
        content = self._content(part)
        return None if content is None else decoded(content, part, self.windows)

    def write(self, part: Part, content: bytes) -> None:
        """Keep what was measured of a part; a folder that cannot be written is a FileError.

        Args:
            part: The sequences.
            content: From `encoded`.
        """
        stem = self._stem(part)
        path = self.folder / f"{stem}-{_digest(content)}.parquet"
        replace_file(path, content)
        self._paths[stem].append(path)

    @cached_property
    def _paths(self) -> defaultdict[str, list[Path]]:
        """The files by their stems: those that lie in the folder at first, and those that are written."""
        found = defaultdict[str, list[Path]](list)
        for path in sorted(self.folder.glob("*.parquet")):
            found[path.stem.rpartition("-")[0]].append(path)
        return found

    def _content(self, part: Part) -> bytes | None:
        for path in self._paths[self._stem(part)]:
            content = path.read_bytes() if path.is_file() else b""
            if path.stem.endswith(_digest(content)):
                return content
        return None

    def _stem(self, part: Part) -> str:
        facts = [self.key, self.model, part.aligned.condition, part.aligned.cut, part.start]
        digest = _digest(json.dumps([*facts, tokens_sha256(list(part.aligned.ids))]).encode())
        return f"{part.aligned.condition}-{part.start:06d}-{digest}"


def parts_of(aligned: Aligned) -> list[Part]:
    """The sequences of a condition in parts.

    Args:
        aligned: All of them.

    Returns:
        Parts of `SEQUENCES` sequences, the last of which may have fewer.
    """
    total = len(aligned.ids)
    return [
        Part(Aligned(aligned.condition, aligned.ids[start : start + SEQUENCES], aligned.cut), start, total)
        for start in range(0, total, SEQUENCES)
    ]


def parts_key(model: nn.Module, windows: Windows, channels: int) -> str:
    """A digest of all that a part's numbers depend on, beside its tokens.

    Args:
        model: The model.
        windows: Past and future of each H_i.
        channels: Heads or channels of each mixer that are measured at most.

    Returns:
        Hexadecimal digits.
    """
    facts = {
        "schema": SCHEMA,
        **model_facts(model, weights_sha256(model)),
        "windows": asdict(windows),
        "channels": channels,
        "tolerances": [TOLERANCE, RELATIVE_TOLERANCE],
    }
    return _digest(json.dumps(facts, sort_keys=True, default=repr).encode())


def encoded(model: str, part: Part, response: Response) -> bytes:
    """What was measured of a part, as a Parquet file with one row a sequence, head and offset.

    Args:
        model: What tables call the model.
        part: The sequences.
        response: What was measured of them.

    Returns:
        The content of the file.
    """
    import pyarrow
    import pyarrow.parquet

    events, units, offsets = response.values[METRICS[0]].shape
    sequences = cast("NDArray[np.int64]", np.arange(part.start, part.start + events))
    per_unit: dict[str, Any] = {"layer": response.layers, "kind": response.kinds, "head": response.units}
    columns: dict[str, Any] = {
        "model": np.repeat(model, events * units * offsets),
        "condition": np.repeat(response.condition, events * units * offsets),
        "sequence": np.repeat(sequences, units * offsets),
        **{name: np.tile(np.repeat(values, offsets), events) for name, values in per_unit.items()},
        "offset": np.tile(response.offsets, events * units),
        **{metric: response.values[metric].ravel() for metric in METRICS},
    }
    content = io.BytesIO()
    parquet = cast("Any", pyarrow.parquet)
    parquet.write_table(cast("Any", pyarrow).table(columns), content, compression="zstd")
    return content.getvalue()


def decoded(content: bytes, part: Part, windows: Windows) -> Response:
    """The other direction of `encoded`.

    Args:
        content: Of a file that `encoded` made.
        part: The sequences.
        windows: Past and future of each H_i.

    Returns:
        What was measured of them.
    """
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
    """The response of all parts of a condition.

    Args:
        responses: Of the parts, in order, at least one.

    Returns:
        One.
    """
    first = responses[0]
    values = {metric: np.concatenate([one.values[metric] for one in responses]) for metric in METRICS}
    return Response(first.condition, first.offsets, first.references, first.layers, first.kinds, first.units, values)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
