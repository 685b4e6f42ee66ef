"""The datasets of a profile: tokens at the root, one of each mixer; measured by sequences, which are then joined."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from statesize.adapters.observation import DERIVATIVE, SHARED
from statesize.codes import Code, Note
from statesize.measurement.measurement import Measurement
from statesize.measurement.settings import Settings
from statesize.measurement.statistics import Sample
from statesize.results.fields import BY_SEQUENCE, BY_UNIT, FIELDS, MIXER_DIMS
from statesize.results.store import ALONG
from statesize.texts.inputs import Given, ids_of
from statesize.texts.tokens import AnyTokenizer, special_ids, token_text

_ATTRIBUTES = ("kind", "notes", "cache", "multiplicity", "dtype", "precision", "engine", "stratum_sizes")


def sequence_dataset(
    facts: Mapping[str, Any],
    by_sequence: tuple[float, ...],
    sample: Sample,
    positions: Sequence[int],
    measurements: Sequence[Measurement],
    settings: Settings,
    by_unit: Mapping[str, Sequence[float]],
) -> xr.Dataset:
    """The dataset of one mixer over one sequence, from measurements of batch shape (1, some units).

    Args:
        facts: Its attributes, but for the sizes of the strata.
        by_sequence: The values of BY_SEQUENCE; without the first the state size is not known either.
        sample: Which units were measured.
        positions: Those that were measured, ≥ 1; empty where none could be.
        measurements: All units, in blocks.
        settings: Those of the profile.
        by_unit: Those of BY_UNIT that are known, of each unit.

    Returns:
        The variables of `MIXER_DIMS`.
    """
    name, multiplicity = facts["name"], facts["multiplicity"]
    unit = "group" if name.endswith(SHARED) else "channel" if multiplicity == 1 else "head"
    # Nothing has passed before position 0: every quantity there is 0. A window does not fit there.
    origin = bool(positions) and settings.past is None and settings.future is None
    variables: dict[str, Any] = {
        unit: sample.units,
        "position": np.array([0, *positions] if origin else positions, np.int64),
        "threshold": np.array(settings.tolerances, np.float64),
        "relative_threshold": np.array(settings.ratios, np.float64),
        "stratum": sample.strata,
    } | {name: np.array([value], np.float64) for name, value in zip(BY_SEQUENCE, by_sequence, strict=True)}
    unknown = [np.nan] * len(sample.units)
    variables |= {name: np.array([by_unit.get(name, unknown)], np.float64) for name in BY_UNIT}
    dims = MIXER_DIMS[unit]
    for listed in FIELDS.values():
        values = np.zeros([1 if dim == ALONG else len(variables[dim]) for dim in dims[listed.name]], listed.dtype)
        if measurements:
            blocks = [getattr(measurement, listed.name).detach().cpu().numpy() for measurement in measurements]
            behind = tuple(slice(int(origin and dim == "position"), None) for dim in dims[listed.name])
            values[behind] = np.concatenate(blocks, 1) if unit in dims[listed.name] else blocks[0][None]
        variables[listed.name] = values
    if np.isnan(by_sequence[0]):
        # A size that is not known cannot bind.
        variables["state_size"][:] = variables["tss"][:] = np.nan
        variables["binds"][:] = 0
    arrays = {name: (dims[name], values) for name, values in variables.items()}
    return xr.Dataset(arrays, attrs={**facts, "stratum_sizes": sample.sizes.tolist()})


@dataclass(eq=False)
class MixerRun:
    """A mixer while its sequences are measured; their datasets may lie on disk.

    Attributes:
        name: The mixer's name.
        facts: Attributes of the dataset of the first sequence.
        forms: By sequence, whether it is measured by its derivative, its heads or channels, and how many channels share
            one T.
        sequences: Sequences in which it was called, ascending; all of one form.
        positions: All that were measured, and 0 where no window leaves it out.
    """

    name: str
    facts: Mapping[str, Any]
    engines: set[str] = field(default_factory=set[str])
    forms: dict[int, tuple[bool, int, int]] = field(default_factory=dict[int, tuple[bool, int, int]])
    sequences: list[int] = field(default_factory=list[int])
    positions: set[int] = field(default_factory=set[int])

    def add(self, sequence: int, dataset: xr.Dataset) -> None:
        """Note a sequence."""
        facts = dataset.attrs
        self.forms[sequence] = facts["kind"] == DERIVATIVE, sum(facts["stratum_sizes"]), facts["multiplicity"]
        # Workers finish sequences in any order.
        insort(self.sequences, sequence)
        if self.sequences[0] == sequence:
            self.facts = dataset.attrs
        if dataset.sizes["position"]:
            self.engines.add(dataset.attrs["engine"])
        self.positions.update(dataset["position"].values.tolist())

    def leave_out_other_forms(self) -> dict[int, Note]:
        """Leave out the sequences in which it is measured otherwise than in its first one; why, by sequence."""
        first = self.sequences[0]
        other = {sequence: form for sequence, form in self.forms.items() if form != self.forms[first]}
        self.sequences = [sequence for sequence in self.sequences if sequence not in other]
        before = _described_form(*self.forms[first])
        return {
            sequence: Note(
                Code.NOT_COMPARABLE,
                f"It is measured by {_described_form(*form)} there, by {before} in sequence {first}, so that the "
                "numbers do not compare.",
            )
            for sequence, form in other.items()
        }


def _described_form(by_derivative: bool, count: int, multiplicity: int) -> str:
    units = f"{count} channels" if multiplicity == 1 else f"{count} heads of {multiplicity} channels"
    return "its derivative" if by_derivative else f"a T for each of {units}"


Reader = Callable[[str, int], xr.Dataset]


def token_dataset(sequences: Sequence[Given], tokenizer: AnyTokenizer | None) -> xr.Dataset:
    """The root: token_ids, tokens, special (sequence, token) and length (sequence); special_tokens has ids by role."""
    # Positions without token ids have -1, and their number as text.
    length = max(map(len, sequences))
    ids = np.full((len(sequences), length), -1, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        if (known := ids_of(sequence)) is not None:
            row[: len(sequence)] = known.numpy()
    strings = {-1: ""}
    for key in {int(token) for token in np.unique(ids)} - {-1}:
        strings[key] = str(key) if tokenizer is None else token_text(tokenizer, key)
    marked, roles = (set[int](), dict[str, int]()) if tokenizer is None else special_ids(tokenizer)
    dims = ("sequence", "token")
    texts = [[strings[int(key)] for key in row] for row in ids]
    for index, sequence in enumerate(sequences):
        if ids_of(sequence) is None:
            texts[index][: len(sequence)] = map(str, range(len(sequence)))
    return xr.Dataset(
        {
            "token_ids": (dims, ids),
            "tokens": (dims, shown_texts(texts)),
            "special": (dims, np.isin(ids, sorted(marked))),
            "length": (("sequence",), np.array([len(sequence) for sequence in sequences])),
        },
        attrs={"special_tokens": roles},
    )


def shown_texts(texts: Sequence[Sequence[str]]) -> NDArray[np.str_]:
    """The texts of tokens as an array, in which a NUL, cut from the end of a string there, is shown by its picture."""
    return np.array([[text.replace("\0", "␀") for text in row] for row in texts])


def joined_mixer(run: MixerRun, count: int, read: Reader) -> xr.Dataset:
    """The dataset of one mixer over so many sequences; NaN where nothing was measured."""
    positions, called = np.array(sorted(run.positions or {0}), np.int64), set(run.sequences)
    datasets = (read(run.name, row) if row in called else _unmeasured(run, read) for row in range(count))
    aligned = [
        dataset if np.array_equal(dataset["position"].values, positions) else dataset.reindex(position=positions)
        for dataset in datasets
    ]
    # What has no sequences is the same in all.
    joined = xr.concat(aligned, ALONG, data_vars="minimal", coords="minimal", compat="override", join="override")
    engines = ", ".join(sorted(run.engines))
    joined.attrs = {name: run.facts[name] for name in _ATTRIBUTES} | {"engine": engines}
    return joined


def _unmeasured(run: MixerRun, read: Reader) -> xr.Dataset:
    """A mixer over a sequence in which it was not called."""
    empty = read(run.name, run.sequences[0]).isel(position=slice(0, 0))
    return empty.assign({name: xr.full_like(empty[name], np.nan) for name in (*BY_SEQUENCE, *BY_UNIT)})
