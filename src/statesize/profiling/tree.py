"""From measurements of single mixers and sequences to one labelled DataTree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

Array = NDArray[np.float32]
# Norms and bounds have the operator's scale, which float32 need not hold: 1e50, or a bound that would round to 0.
Wide = NDArray[np.float64]
_WIDE = ("entropy_bound", "norm", "error_bound")


@dataclass(frozen=True)
class SequenceRecord:
    """One mixer over one sequence: H heads, P positions, K tolerances, R relative ones.

    Attributes:
        positions: (P,) integers ≥ 1.
        entropy: (H, P).
        entropy_bound: (H, P).
        tolerance: (H, P, K).
        lower: (H, P, K).
        upper: (H, P, K).
        relative_tolerance: (H, P, R).
        relative_lower: (H, P, R).
        relative_upper: (H, P, R).
        norm: (H, P).
        error_bound: (H, P).
        state_size: (P,).
        ceiling: (P,).
        engine: The engine that gave these.
    """

    positions: NDArray[np.int64]
    entropy: Array
    entropy_bound: Wide
    tolerance: Array
    lower: Array
    upper: Array
    relative_tolerance: Array
    relative_lower: Array
    relative_upper: Array
    norm: Wide
    error_bound: Wide
    state_size: Array
    ceiling: Array
    engine: str


@dataclass
class MixerRecord:
    """One mixer over the sequences measured so far.

    Attributes:
        kind: What the mixer is.
        multiplicity: Channels that share one operator.
        dtype: Dtype in which the model made the operator.
        sequences: Records by index of the sequence.
    """

    kind: str
    multiplicity: int
    dtype: str
    sequences: dict[int, SequenceRecord] = field(default_factory=dict[int, SequenceRecord])


def build_tree(
    sequences: Sequence[Tensor],
    mixers: Mapping[str, MixerRecord],
    tolerances: Sequence[float],
    relative_tolerances: Sequence[float],
    tokenizer: Tokenizer | None,
) -> xr.DataTree:
    """Gather all records in a tree: tokens at the root, one node a mixer.

    Args:
        sequences: Token ids, (L,) each.
        mixers: Records by mixer name.
        tolerances: Absolute tolerances.
        relative_tolerances: Relative tolerances.
        tokenizer: Gives token strings and special tokens; without one, tokens are shown by their ids.

    Returns:
        The tree. A node has dims sequence, head (channel where multiplicity is 1), position, threshold and
        relative_threshold; shorter sequences are NaN beyond their length.
    """
    nodes: dict[str, xr.Dataset] = {"/": _tokens(sequences, tokenizer)}
    for name, record in mixers.items():
        nodes[f"/{name}"] = _node(record, len(sequences), tolerances, relative_tolerances)
    return xr.DataTree.from_dict(nodes)


def _tokens(sequences: Sequence[Tensor], tokenizer: Tokenizer | None) -> xr.Dataset:
    length = max(len(ids) for ids in sequences)
    ids = np.full((len(sequences), length), -1, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence.numpy()
    strings, special = {-1: ""}, {-1}
    if tokenizer is not None:
        special |= {key for key, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for key in {int(token) for token in np.unique(ids)} - {-1}:
        strings[key] = str(key) if tokenizer is None else tokenizer.decode([key], skip_special_tokens=False)
    dims = ("sequence", "token")
    return xr.Dataset(
        {
            "token_ids": (dims, ids),
            # A trailing NUL would be cut from a fixed-width string, so it is shown by its picture.
            "tokens": (dims, np.array([[strings[int(key)].replace("\0", "␀") for key in row] for row in ids])),
            "special": (dims, np.isin(ids, list(special - {-1}))),
            "length": (("sequence",), np.array([len(sequence) for sequence in sequences])),
        }
    )


def _node(
    record: MixerRecord, count: int, tolerances: Sequence[float], relative_tolerances: Sequence[float]
) -> xr.Dataset:
    measured = record.sequences
    positions = np.unique(np.concatenate([np.zeros(1, np.int64), *(item.positions for item in measured.values())]))
    heads = max((item.entropy.shape[0] for item in measured.values()), default=0)
    unit = "channel" if record.multiplicity == 1 else "head"
    by_head = ("sequence", unit, "position")
    dims = {
        "entropy": by_head,
        "entropy_bound": by_head,
        "tolerance": (*by_head, "threshold"),
        "lower": (*by_head, "threshold"),
        "upper": (*by_head, "threshold"),
        "relative_tolerance": (*by_head, "relative_threshold"),
        "relative_lower": (*by_head, "relative_threshold"),
        "relative_upper": (*by_head, "relative_threshold"),
        "norm": by_head,
        "error_bound": by_head,
        "state_size": ("sequence", "position"),
        "ceiling": ("sequence", "position"),
    }
    sizes = {
        "sequence": count,
        unit: heads,
        "position": len(positions),
        "threshold": len(tolerances),
        "relative_threshold": len(relative_tolerances),
    }
    variables = {
        name: (names, _filled(name, [sizes[dim] for dim in names], measured, positions)) for name, names in dims.items()
    }
    coordinates = {
        "position": positions,
        "threshold": np.array(tolerances, np.float64),
        "relative_threshold": np.array(relative_tolerances, np.float64),
    }
    engines = sorted({item.engine for item in measured.values()})
    attributes = {
        "kind": record.kind,
        "multiplicity": record.multiplicity,
        "dtype": record.dtype,
        "engine": ", ".join(engines),
    }
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _filled(
    name: str, shape: Sequence[int], measured: Mapping[int, SequenceRecord], positions: NDArray[np.int64]
) -> NDArray[np.float32 | np.float64]:
    axis = 0 if name in {"state_size", "ceiling"} else 1
    values = np.full(shape, np.nan).astype(np.float64 if name in _WIDE else np.float32)
    for sequence, item in measured.items():
        # Nothing has passed before position 0: every quantity there is 0.
        values[(sequence, *(slice(None),) * axis, 0)] = 0.0
        where = (slice(None),) * axis + (np.searchsorted(positions, item.positions),)
        values[sequence][where] = getattr(item, name)
    return values
