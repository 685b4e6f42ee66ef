"""From measurements of single mixers and sequences to labelled datasets: tokens at the root, one node a mixer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from statesize.errors import ModelError
from statesize.results.record import WIDE, SequenceRecord
from statesize.results.sampling import Sample
from statesize.results.settings import Settings
from statesize.texts.tokens import AnyTokenizer, special_ids, token_text

# Bytes of records that are gathered at once when a profile is written.
_PART_BYTES = 2**28


@dataclass(eq=False)
class MixerRun:
    """What is kept of a mixer while sequences are measured; the records may lie on disk.

    Attributes:
        name: The mixer's name.
        kind: What it is.
        note: What it does to its values beside mixing them.
        multiplicity: Channels that share one operator.
        dtype: Dtype in which the model made the operators.
        sample: Which heads or channels are measured.
        engines: Those that were used.
        sequences: Indices of the sequences in which it was called, ascending.
        bytes: Size of the largest record.
    """

    name: str
    kind: str
    note: str
    multiplicity: int
    dtype: str
    sample: Sample
    engines: set[str] = field(default_factory=set[str])
    sequences: list[int] = field(default_factory=list[int])
    bytes: int = 1

    @classmethod
    def begin(cls, record: SequenceRecord) -> MixerRun:
        """A mixer that was met for the first time.

        Args:
            record: Its first record.

        Returns:
            What is kept of it, without the record's numbers.
        """
        return cls(record.name, record.kind, record.note, record.multiplicity, record.dtype, record.sample)

    def add(self, sequence: int, record: SequenceRecord) -> None:
        """Note a record.

        Args:
            sequence: Index of the sequence.
            record: What was measured.

        Raises:
            ModelError: If its heads are not those of the earlier ones.
        """
        if record.sample.total != self.sample.total:
            raise ModelError(
                f"Mixer {self.name}: its operator has {self.sample.total} heads at sequence {self.sequences[0]} and "
                f"{record.sample.total} at sequence {sequence}; a profile needs the same number at each."
            )
        self.sequences.append(sequence)
        if len(record.positions):
            self.engines.add(record.engine)
        self.bytes = max(self.bytes, 4 * record.norm.nbytes + 9 * record.entropy.nbytes)


Reader = Callable[[str, int], SequenceRecord]


def token_dataset(sequences: Sequence[Tensor], tokenizer: AnyTokenizer | None) -> xr.Dataset:
    """The root of a profile.

    Args:
        sequences: Token ids, (L,) each.
        tokenizer: Gives token strings and special tokens; without one, tokens are shown by their ids.

    Returns:
        token_ids, tokens, special (sequence, token), length (sequence); attribute special_tokens, ids by role.
    """
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
    """The dataset of one mixer, in parts along the dimension sequence.

    Args:
        run: The mixer.
        lengths: Tokens of each sequence.
        settings: What was asked.
        read: Gives the record of a mixer and a sequence in which it was called.
        whole: One part for all sequences, however large.

    Yields:
        Datasets of dims sequence, head (channel where multiplicity is 1), position, threshold and
        relative_threshold; NaN where nothing was measured.
    """
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
    unit = "channel" if run.multiplicity == 1 else "head"
    by_head = ("sequence", unit, "position")
    absolute, relative = (*by_head, "threshold"), (*by_head, "relative_threshold")
    dims = {
        "entropy": by_head,
        "entropy_bound": by_head,
        "tolerance": absolute,
        "lower": absolute,
        "upper": absolute,
        "relative_tolerance": relative,
        "relative_lower": relative,
        "relative_upper": relative,
        "norm": by_head,
        "error_bound": by_head,
        "state_size": ("sequence", "position"),
        "ceiling": ("sequence", "position"),
    }
    coordinates = {
        unit: run.sample.units,
        "position": positions,
        "threshold": np.array(settings.tolerances, np.float64),
        "relative_threshold": np.array(settings.relative_tolerances, np.float64),
    }
    sizes = {"sequence": count} | {name: len(values) for name, values in coordinates.items()}
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.generic]]] = {
        name: (names, _filled(name, [sizes[dim] for dim in names], records, positions)) for name, names in dims.items()
    }
    variables["stratum"] = ((unit,), run.sample.strata)
    for name in ("state_bytes", "faithfulness", "run_difference"):
        values = [float(getattr(records[row], name)) if row in records else np.nan for row in range(count)]
        variables[name] = (("sequence",), np.array(values, np.float64))
    attributes = {
        "kind": run.kind,
        "note": run.note,
        "multiplicity": run.multiplicity,
        "dtype": run.dtype,
        "engine": ", ".join(sorted(run.engines)),
        "stratum_sizes": run.sample.sizes.tolist(),
    }
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _filled(
    name: str, shape: Sequence[int], records: Mapping[int, SequenceRecord], positions: NDArray[np.int64]
) -> NDArray[np.float32 | np.float64]:
    axis = 0 if name in {"state_size", "ceiling"} else 1
    values = np.full(shape, np.nan).astype(np.float64 if name in WIDE else np.float32)
    for row, record in records.items():
        if not len(record.positions):
            continue
        # Nothing has passed before position 0: every quantity there is 0.
        if positions[0] == 0:
            values[(row, *(slice(None),) * axis, 0)] = 0.0
        where = (slice(None),) * axis + (np.searchsorted(positions, record.positions),)
        values[row][where] = getattr(record, name)
    return values
