"""From measurements of single mixers and sequences to labelled datasets: tokens at the root, one node a mixer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, cast

import numpy as np
import safetensors.numpy
import xarray as xr
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from statesize.adapters.captured import SHARED
from statesize.errors import ModelError
from statesize.io.files import parse_json
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import Sample
from statesize.results.fields import FIELDS, UNIT, Array, Field
from statesize.texts.tokens import AnyTokenizer, special_ids, token_text


@dataclass(frozen=True, eq=False)
class SequenceRecord:
    """One mixer over one sequence, at positions (P,) ≥ 1; `arrays` holds what `FIELDS` names.

    Attributes:
        note: What the mixer does to its values beside mixing them; empty where it does nothing.
        cache: The mixer whose groups hold the heads of all that read the same cache; empty where this one does.
        multiplicity: Channels that share one operator.
        dtype: Number type in which the model made the operator.
        state_bytes: Bytes of the model's own cache for this mixer at the end of the sequence.
        faithfulness: Largest relative difference of T u from the unaltered model's, NaN if not known.
        run_difference: That of the last hidden state.
    """

    name: str
    kind: str
    note: str
    cache: str
    multiplicity: int
    dtype: str
    engine: str
    state_bytes: int
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


# Bytes of records that are gathered at once when a profile is written.
_PART_BYTES = 2**28


@dataclass(eq=False)
class MixerRun:
    """What is kept of a mixer while sequences are measured; the records may lie on disk.

    Attributes:
        about: The first record, without its numbers.
        sequences: Sequences in which it was called, ascending.
        bytes: Bytes of the largest record.
    """

    about: SequenceRecord
    engines: set[str] = field(default_factory=set[str])
    sequences: list[int] = field(default_factory=list[int])
    bytes: int = 1

    @classmethod
    def begin(cls, record: SequenceRecord) -> MixerRun:
        """A mixer that was met for the first time."""
        return cls(replace(record, arrays={}))

    @property
    def name(self) -> str:
        """The mixer's name."""
        return self.about.name

    def add(self, sequence: int, record: SequenceRecord) -> None:
        """Note a record; one of other heads than the earlier ones is a ModelError."""
        before, now = self.about.sample.total, record.sample.total
        if now != before:
            raise ModelError(
                f"Mixer {self.name}: its operator has {before} heads at sequence {self.sequences[0]} and {now} at "
                f"sequence {sequence}; a profile needs the same number at each."
            )
        self.sequences.append(sequence)
        if len(record.positions):
            self.engines.add(record.engine)
        self.bytes = max(self.bytes, sum(values.nbytes for values in record.arrays.values()))


Reader = Callable[[str, int], SequenceRecord]


def token_dataset(sequences: Sequence[Tensor], tokenizer: AnyTokenizer | None) -> xr.Dataset:
    """The root: token_ids, tokens, special (sequence, token) and length (sequence); special_tokens has ids by role."""
    length = max(len(ids) for ids in sequences)
    ids = np.full((len(sequences), length), -1, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence.numpy()
    strings = {-1: ""}
    for key in {int(token) for token in np.unique(ids)} - {-1}:
        strings[key] = str(key) if tokenizer is None else token_text(tokenizer, key)
    marked, roles = (set[int](), dict[str, int]()) if tokenizer is None else special_ids(tokenizer)
    dims = ("sequence", "token")
    return xr.Dataset(
        {
            "token_ids": (dims, ids),
            # A trailing NUL would be cut from a fixed-width string, so it is shown by its picture.
            "tokens": (dims, np.array([[strings[int(key)].replace("\0", "␀") for key in row] for row in ids])),
            "special": (dims, np.isin(ids, sorted(marked))),
            "length": (("sequence",), np.array([len(sequence) for sequence in sequences])),
        },
        attrs={"special_tokens": roles},
    )


def mixer_parts(
    run: MixerRun, lengths: Sequence[int], settings: Settings, read: Reader, *, whole: bool
) -> Iterator[xr.Dataset]:
    """The dataset of one mixer, in one part or in parts along the sequences; NaN where nothing was measured."""
    cuts = [settings.cut(length) for length in sorted({lengths[sequence] for sequence in run.sequences})]
    positions = np.array(sorted({position for cut in cuts if cut for position in cut.positions}), np.int64)
    # Before position 0 nothing has passed; a window does not fit there.
    if not len(positions) or (settings.past is None and settings.future is None):
        positions = np.concatenate([np.zeros(1, np.int64), positions])
    called, size = set(run.sequences), len(lengths) if whole else max(1, _PART_BYTES // run.bytes)
    for first in range(0, len(lengths), size):
        rows = range(first, min(first + size, len(lengths)))
        records = {row - first: read(run.name, row) for row in rows if row in called}
        yield _part(run, records, len(rows), positions, settings)


def _part(
    run: MixerRun,
    records: Mapping[int, SequenceRecord],
    count: int,
    positions: NDArray[np.int64],
    settings: Settings,
) -> xr.Dataset:
    about, sample = run.about, run.about.sample
    unit = "group" if about.name.endswith(SHARED) else "channel" if about.multiplicity == 1 else "head"
    coordinates = {
        unit: sample.units,
        "position": positions,
        "threshold": np.array(settings.tolerances, np.float64),
        "relative_threshold": np.array(settings.relative_tolerances, np.float64),
    }
    sizes = {"sequence": count} | {name: len(values) for name, values in coordinates.items()}
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.generic]]] = {}
    for name, listed in FIELDS.items():
        dims = ("sequence", *(unit if dim == UNIT else dim for dim in listed.dims))
        variables[name] = dims, _filled(listed, [sizes[dim] for dim in dims], records, positions)
    variables["stratum"] = ((unit,), sample.strata)
    for name in ("state_bytes", "faithfulness", "run_difference"):
        values = [float(getattr(records[row], name)) if row in records else np.nan for row in range(count)]
        variables[name] = (("sequence",), np.array(values, np.float64))
    attributes = {
        **{name: getattr(about, name) for name in ("kind", "note", "cache", "multiplicity", "dtype")},
        "engine": ", ".join(sorted(run.engines)),
        "stratum_sizes": sample.sizes.tolist(),
    }
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _filled(
    listed: Field, shape: Sequence[int], records: Mapping[int, SequenceRecord], positions: NDArray[np.int64]
) -> Array:
    before = (slice(None),) * listed.dims.index("position")
    values = np.full(shape, np.nan, listed.dtype)
    for row, record in records.items():
        if not len(record.positions):
            continue
        # Nothing has passed before position 0: every quantity there is 0.
        if positions[0] == 0:
            values[(row, *before, 0)] = 0.0
        values[row][(*before, np.searchsorted(positions, record.positions))] = record.arrays[listed.name]
    return values
