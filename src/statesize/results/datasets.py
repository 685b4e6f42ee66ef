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
    # Where it has other heads than in the first, numbers would not compare.
    forms, cuts, engines = dict[int, str](), set[int](), set[str]()
    for sequence in called:
        dataset = read(sequence)
        forms[sequence] = _form(dataset.attrs)
        if forms[sequence] == forms[called[0]]:
            cuts.update(dataset[POSITION].values.tolist())
            engines |= {dataset.attrs["engine"]} if dataset.sizes[POSITION] else set()
    here = f"by {forms[called[0]]} in sequence {called[0]}, so that the numbers do not compare."
    left_out = {
        sequence: Note(Code.NOT_COMPARABLE, f"It is measured by {form} there, {here}")
        for sequence, form in forms.items()
        if form != forms[called[0]]
    }
    measured, positions = forms.keys() - left_out.keys(), np.array(sorted(cuts or {0}), np.int64)
    first = read(called[0])
    datasets = (read(sequence) if sequence in measured else _uncalled(first) for sequence in range(count))
    aligned = [
        dataset if np.array_equal(dataset[POSITION].values, positions) else dataset.reindex(position=positions)
        for dataset in datasets
    ]
    # What has no sequences is the same in all.
    options: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    joined = xr.concat(aligned, SEQUENCE, **options) if count > 1 else aligned[0].copy()
    joined.attrs = {name: first.attrs[name] for name in _ATTRIBUTES} | {"engine": ", ".join(sorted(engines))}
    return joined, left_out


def _uncalled(measured: xr.Dataset) -> xr.Dataset:
    """A mixer over a sequence in which it was not called, as beside one in which it was."""
    empty = measured.isel({POSITION: slice(0, 0)})
    known = (name for name, array in arrays().items() if POSITION not in (array.dims or ()))
    return empty.assign({name: xr.full_like(empty[name], np.nan) for name in known})


def _form(facts: Mapping[str, Any]) -> str:
    """By what a mixer is measured in a sequence."""
    if facts["kind"] == DERIVATIVE:
        return "its derivative"
    count, multiplicity = sum(facts["stratum_sizes"]), facts["multiplicity"]
    units = f"{count} channels" if multiplicity == 1 else f"{count} heads of {multiplicity} channels"
    return f"a T for each of {units}"
