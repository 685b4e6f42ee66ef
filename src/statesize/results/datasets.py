"""The datasets of a profile: tokens at the root, one of each mixer; measured by sequences, which are then joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

import numpy as np
import xarray as xr

from statesize.adapters.observation import DERIVATIVE, SHARED
from statesize.codes import Code, Note
from statesize.measurement.measurement import Measurement
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import Sample
from statesize.results.fields import POSITION, SEQUENCE, array_dims, arrays
from statesize.texts.inputs import Given, ids_of
from statesize.texts.tokens import AnyTokenizer, special_ids, token_text

_ATTRIBUTES = ("kind", "notes", "cache", "multiplicity", "dtype", "precision", "engine", "stratum_sizes")


def sequence_dataset(
    facts: Mapping[str, Any],
    known: Mapping[str, float | Sequence[float]],
    sample: Sample,
    positions: Sequence[int],
    measurements: Sequence[Measurement],
    settings: Settings,
) -> xr.Dataset:
    """The dataset of one mixer over one sequence, from measurements of batch shape (1, some units), in blocks."""
    # known: by name what no measurement holds, a number of the sequence or one for each unit; NaN where one is missing.
    # Where `state_bytes` is NaN, the state size is not known either.
    unit = "group" if facts["name"].endswith(SHARED) else "channel" if facts["multiplicity"] == 1 else "head"
    # Nothing has passed before position 0: every quantity there is 0. A window does not fit there.
    origin = int(bool(positions) and settings.past is None and settings.future is None)
    variables: dict[str, Any] = {
        unit: sample.units,
        "stratum": sample.strata,
        POSITION: np.array([0] * origin + [*positions], np.int64),
        "threshold": np.array(settings.tolerances, np.float64),
        "relative_threshold": np.array(settings.ratios, np.float64),
    }
    dims = array_dims(unit)
    for name, array in arrays().items():
        shape = [1 if dim == SEQUENCE else len(variables[dim]) for dim in dims[name]]
        if POSITION not in dims[name]:
            variables[name] = np.broadcast_to(np.array(known.get(name, math.nan), np.float64), shape).copy()
            continue
        values = variables[name] = np.zeros(shape, array.dtype)
        if measurements:
            blocks = [getattr(measurement, name).detach().cpu().numpy() for measurement in measurements]
            behind = tuple(slice(origin if dim == POSITION else 0, None) for dim in dims[name])
            values[behind] = np.concatenate(blocks, 1) if unit in dims[name] else blocks[0][None]
    if math.isnan(cast("float", known["state_bytes"])):
        # A size that is not known cannot bind.
        variables["tss"][:] = variables["state_size"][:] = math.nan
        variables["binds"][:] = 0
    return xr.Dataset(
        {name: (dims[name], values) for name, values in variables.items()},
        attrs={**facts, "stratum_sizes": sample.sizes.tolist()},
    )


def token_dataset(sequences: Sequence[Given], tokenizer: AnyTokenizer | None) -> xr.Dataset:
    """The root: token_ids, tokens, special (sequence, token) and length (sequence); special_tokens has ids by role."""
    # Positions without token ids have -1, and their number as text.
    lengths = [len(sequence) for sequence in sequences]
    ids = np.full((len(sequences), max(lengths)), -1, np.int64)
    texts = [[""] * max(lengths) for _ in sequences]
    text_of = cache(str if tokenizer is None else partial(token_text, tokenizer))
    for row, sequence in enumerate(sequences):
        if (known := ids_of(sequence)) is None:
            texts[row][: len(sequence)] = map(str, range(len(sequence)))
        else:
            ids[row, : len(sequence)] = known.numpy()
            texts[row][: len(sequence)] = map(text_of, cast("list[int]", known.tolist()))
    marked, roles = (set[int](), dict[str, int]()) if tokenizer is None else special_ids(tokenizer)
    dims = (SEQUENCE, "token")
    return xr.Dataset(
        {
            "token_ids": (dims, ids),
            # A NUL, which an array cuts from the end of a string, is shown by its picture.
            "tokens": (dims, np.array([[text.replace("\0", "␀") for text in row] for row in texts])),
            "special": (dims, np.isin(ids, sorted(marked))),
            "length": ((SEQUENCE,), np.array(lengths)),
        },
        attrs={"special_tokens": roles},
    )


def joined_mixer(
    called: Sequence[int], count: int, read: Callable[[int], xr.Dataset]
) -> tuple[xr.Dataset, dict[int, Note]]:
    """One mixer over `count` sequences from those in which it was called, NaN in others, and why some are left out."""
    datasets = {sequence: read(sequence) for sequence in called}
    first = datasets[called[0]]
    otherwise = f"Its heads, or T in place of its derivative, differ from those in sequence {called[0]}."
    apart = [sequence for sequence in called if _units(datasets[sequence]) != _units(first)]
    left_out = dict.fromkeys(apart, Note(Code.NOT_COMPARABLE, otherwise))
    measured = {sequence: dataset for sequence, dataset in datasets.items() if sequence not in left_out}
    # What has no sequences is the same in all.
    options: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "outer"}
    joined = xr.concat([*measured.values()], SEQUENCE, **options).assign_coords({SEQUENCE: [*measured]})
    positions = joined[POSITION].values if joined.sizes[POSITION] else [0]
    joined = joined.reindex({SEQUENCE: range(count), POSITION: positions}).drop_vars(SEQUENCE)
    engines = {dataset.attrs["engine"] for dataset in measured.values() if dataset.sizes[POSITION]}
    joined.attrs = {name: first.attrs[name] for name in _ATTRIBUTES} | {"engine": ", ".join(sorted(engines))}
    return joined, left_out


def _units(dataset: xr.Dataset) -> tuple[object, ...]:
    """What a mixer has in common in sequences whose numbers compare."""
    facts = dataset.attrs
    return facts["kind"] == DERIVATIVE, facts["multiplicity"], sum(facts["stratum_sizes"])
