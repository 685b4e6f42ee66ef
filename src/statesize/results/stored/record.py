"""What was measured of one mixer over one sequence, in memory and as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from statesize.files import parse_json
from statesize.results.fields import FIELDS, Array
from statesize.results.sampling import Sample


@dataclass(frozen=True, eq=False)
class SequenceRecord:
    """One mixer over one sequence, at positions (P,) ≥ 1; `arrays` holds what `FIELDS` names."""

    name: str
    kind: str
    # What the mixer does to its values beside mixing them; empty where it does nothing.
    note: str
    # The mixer whose groups hold the heads of all that read the same cache; empty where this one does.
    cache: str
    # Channels that share one operator.
    multiplicity: int
    # In which the model made the operator.
    dtype: str
    engine: str
    # Of the model's own cache for this mixer at the end of the sequence.
    state_bytes: int
    # Largest relative differences of T u from the unaltered model's, NaN if not known, and of the last hidden state.
    faithfulness: float
    run_difference: float
    seconds: float
    sample: Sample
    positions: NDArray[np.int64]
    arrays: dict[str, Array]

    def to_bytes(self) -> bytes:
        """A line of JSON and safetensors, as `from_bytes` reads them."""
        arrays = {**self.arrays, **vars(self.sample), "positions": self.positions}
        names = [field.name for field in fields(self) if field.name not in {"arrays", "sample", "positions"}]
        facts = json.dumps({name: getattr(self, name) for name in names})
        content = safetensors.numpy.save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
        return facts.encode() + b"\n" + content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The record that `to_bytes` wrote; other bytes are a ValueError."""
        facts, _, tensors = content.partition(b"\n")
        try:
            values: dict[str, Any] = cast("dict[str, Any]", parse_json(facts)) | safetensors.numpy.load(tensors)
        except (TypeError, SafetensorError) as error:
            raise ValueError(f"it holds no record ({error})") from error
        drawn = {field.name for field in fields(Sample)}
        if values.keys() != {field.name for field in fields(cls)} - {"sample", "arrays"} | drawn | FIELDS.keys():
            raise ValueError("it holds no record, or one of other fields")
        sample = Sample(**{name: values.pop(name) for name in drawn})
        arrays = {name: values.pop(name) for name in FIELDS}
        return cls(sample=sample, arrays=arrays, **values)
