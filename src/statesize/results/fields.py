"""All quantities of a profile: the arrays of its datasets, and the columns of tables, JSON documents and pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from statesize.io.text import byte_count

Array = NDArray[np.float32 | np.float64]
UNIT = "unit"
"""Stands for the heads or channels of a mixer."""
UNITS = ("head", "channel", "group")
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
"""Of a number in the dtypes in which a model may make an operator, by the names that profiles use."""


class Field(NamedTuple):
    """An array of a mixer, or of one over a sequence.

    Attributes:
        dtype: The operator's scale need not fit into float32: 1e50, or a bound that would round to 0.
    """

    name: str
    dims: tuple[str, ...]
    unit: str
    meaning: str
    dtype: DTypeLike = np.float32


class CountFields(NamedTuple):
    """The fields of one kind of counts: between which bounds they lie, and the dimension of their tolerances."""

    name: str
    lower: str
    upper: str
    threshold: str


COUNTS = (
    CountFields("relative_count", "relative_lower", "relative_upper", "relative_threshold"),
    CountFields("count", "lower", "upper", "threshold"),
)
_CUTS, _NUMBERS = (UNIT, "position"), "numbers per channel"
_COUNTED = {
    counts: (f"{kind} tolerance-ESS".strip().capitalize(), f"lower bound of the {kind} count", "its upper bound")
    for counts, kind in zip(COUNTS, ("relative", ""), strict=True)
}
FIELDS = {
    field.name: field
    for field in (
        Field("entropy", _CUTS, _NUMBERS, "entropy-ESS"),
        Field("entropy_bound", _CUTS, _NUMBERS, "how far entropy-ESS can be off", np.float64),
        *(
            Field(name, (*_CUTS, counts.threshold), _NUMBERS, meaning)
            for counts, meanings in _COUNTED.items()
            for name, meaning in zip(counts[:3], meanings, strict=True)
        ),
        Field("norm", _CUTS, "", "Frobenius norm of H_i", np.float64),
        Field("error_bound", _CUTS, "", "bound on the error of each singular value", np.float64),
        Field("state_size", ("position",), _NUMBERS, "TSS; NaN where it is unknown"),
        Field("ceiling", ("position",), _NUMBERS, "the most that ESS could be"),
        Field("binds", ("position",), "", "1 where the layer's own size is what limits ESS"),
    )
}
"""Arrays over the cuts of a sequence."""
_BY_SEQUENCE = (
    Field("state_bytes", (), "bytes", "what the model's own cache holds at the end"),
    Field("tss", (), _NUMBERS, "TSS at the end"),
    Field("cuts", (), "", "how many cuts there are"),
    Field("faithfulness", (), "", "largest relative difference of T u from the unaltered model's"),
    Field("run_difference", (), "", "that of the last hidden state"),
    Field("middle", (), "tokens", "the measured cut that is nearest to the middle"),
)
_SINKS = (
    Field("sink_share", (UNIT,), "", "of attention: share of the token that gets most of it"),
    Field("sink_position", (UNIT,), "tokens", "which token that is"),
    Field("without_sink", (UNIT,), _NUMBERS, "entropy-ESS at the middle without that token's column, if it is a sink"),
)
_VARIANT = (
    Field("few_cuts_entropy", (UNIT,), _NUMBERS, "entropy-ESS at three cuts"),
    Field("variant_entropy", (UNIT,), _NUMBERS, "the same by the settings weights, skip_first and squares"),
)
BY_SEQUENCE, SINKS, VARIANT = (tuple(field.name for field in fields) for fields in (_BY_SEQUENCE, _SINKS, _VARIANT))
BY_UNIT = (*SINKS, *VARIANT)
ARRAYS = {**FIELDS, **{field.name: field for field in (*_BY_SEQUENCE, *_SINKS, *_VARIANT)}}
"""All of them, with their units and meanings, which `Profile.to_xarray` gives as attributes."""
MIXER_DIMS: dict[str, dict[str, tuple[str, ...]]] = {
    unit: {
        **{name: ("sequence", *(unit if dim == UNIT else dim for dim in field.dims)) for name, field in ARRAYS.items()},
        "stratum": (unit,),
        **{name: (name,) for name in (unit, "position", "threshold", "relative_threshold")},
    }
    for unit in UNITS
}
"""The dimensions of each variable of a mixer's dataset, by whether its units are heads, channels or groups."""

LAYERS, MODELS, GROUPS = "layers", "models", "groups"
"""Tables of a profile's layers, of the models of a comparison, and of heads that share a cache."""


@dataclass(frozen=True)
class Column:
    """A column of tables, JSON documents, data frames and pages.

    Attributes:
        name: As documents and data frames have it; NAME_error beside it is half the width of its interval of 95 %.
        heading: As tables have it; a narrow one breaks at the line end.
        form: A format specification, "bytes", "norm", "text", or "codes".
        unit: Of its numbers.
        meaning: What it is, in a sentence.
        tables: The tables that have it.
        first: Whether it is one of those that are read first, which the terminal shows.
        has_error: Whether NAME_error stands beside it.
    """

    name: str
    heading: str
    form: str
    unit: str
    meaning: str
    tables: tuple[str, ...]
    first: bool = False
    has_error: bool = False

    @property
    def line(self) -> str:
        """The heading on one line."""
        return self.heading.replace("\n", " ")


_BOTH, _EVERY = (LAYERS, MODELS), (LAYERS, MODELS, GROUPS)
COLUMNS = (
    Column("model", "model", "text", "", "The model.", _EVERY, first=True),
    Column("layer", "layer", "text", "", "The mixer's module name in the model.", (LAYERS, GROUPS), first=True),
    Column("kind", "kind", "text", "", "What the mixer is.", (LAYERS,)),
    Column("loss", "loss", ".2f", "nats per token", "Mean cross-entropy, where it is known.", (MODELS,), first=True),
    Column(
        "ess", "ESS", ".1f", _NUMBERS,
        "Entropy-ESS at the cut nearest to the middle of each text, averaged over texts and heads.", _BOTH, first=True,
        has_error=True,
    ),
    Column(
        "without_sink", "without\nsink", ".1f", _NUMBERS,
        "ESS without the column of the token that gets most attention, in heads where that token is a sink.", _BOTH,
        first=True,
    ),
    Column(
        "ceiling", "ceiling", ",.0f", _NUMBERS,
        "The most that ESS could be there: what the layer holds, or the tokens before or after the cut.", _BOTH,
        first=True,
    ),
    Column(
        "share_of_state", "share\nof state", "z.0%", "",
        "ESS divided by the ceiling, of layers with a fixed state that the text can fill.", _BOTH, first=True,
    ),
    Column(
        "share_of_ceiling", "share of\nceiling", "z.0%", "",
        "ESS divided by the ceiling, of layers that keep every token. It does not compare with a share of a state.",
        _BOTH, first=True,
    ),
    Column(
        "tss", "TSS", ",.0f", _NUMBERS,
        "Theoretical state-size: what the layer can hold in a channel at the end of the longest text.", _EVERY,
    ),
    Column("total_tss", "total\nTSS", ",.0f", "numbers", "TSS summed over all stored channels.", (MODELS,)),
    Column("state_bytes", "state\nbytes", "bytes", "bytes", "What the model's cache holds at the end.", _BOTH),
    Column("middle_bytes", "bytes at\nthe middle", "bytes", "bytes", "What it holds at the middle.", (MODELS,)),
    Column("units", "heads", ",.0f", "", "Heads or channels of the layer.", (LAYERS,)),
    Column("measured", "measured", ",.0f", "", "How many of them were measured.", (LAYERS,)),
    Column(
        "average_entropy", "average\nESS", ".1f", _NUMBERS,
        "Entropy-ESS averaged over texts, measured cuts and heads.", _BOTH, has_error=True,
    ),
    Column(
        "average_relative_count", "average\ncount", ".1f", _NUMBERS,
        "How many singular values exceed the first relative tolerance times the largest, averaged likewise.", _BOTH,
        has_error=True,
    ),
    Column(
        "total_entropy", "total\nESS", ",.0f", "numbers",
        "Entropy-ESS summed over stored channels; what several heads read counts once, by their joint ESS.", _BOTH,
        has_error=True,
    ),
    Column(
        "total_relative_count", "total\ncount", ",.0f", "numbers", "The counts summed likewise.", _BOTH, has_error=True
    ),
    Column(
        "norm", "norm", "norm", "", "Average Frobenius norm of H_i. Each kind of layer has its own scale.", _BOTH
    ),
    Column(
        "state_utilisation", "average share\nof state", "z.0%", "",
        "Entropy-ESS divided by TSS, averaged over the cuts where a fixed state is what limits it.", _BOTH,
    ),
    Column(
        "ceiling_utilisation", "average share\nof ceiling", "z.0%", "",
        "Entropy-ESS divided by its ceiling over the middle half of the text, of layers that keep every token.", _BOTH,
    ),
    Column("sink_share", "sink\nshare", "z.0%", "", "Attention that the token with most of it takes.", (LAYERS,)),
    Column("sink_position", "sink\nat", ",.0f", "tokens", "Where that token is, of most texts and heads.", (LAYERS,)),
    Column("few_cuts_entropy", "ESS at\nthree cuts", ".1f", _NUMBERS, "Beside its variant.", (LAYERS,)),
    Column(
        "variant_entropy", "its\nvariant", ".1f", _NUMBERS, "By the settings weights, skip_first and squares.",
        (LAYERS,),
    ),
    Column(
        "faithfulness", "difference\nto model", ".0e", "",
        "Largest difference of T u from what the unaltered model computed, relative to the largest value.", (LAYERS,),
    ),
    Column(
        "run_difference", "difference\nof run", ".0e", "", "That of the last hidden state of the observed run.",
        (LAYERS,),
    ),
    Column("engine", "engine", "text", "", "The algorithm that measured it.", (LAYERS,)),
    Column("groups", "groups", ",.0f", "", "Stored inputs that several heads read.", (GROUPS,)),
    Column("readouts", "heads\neach", ",.0f", "", "Heads that read each of them.", (GROUPS,)),
    Column(
        "joint_entropy", "joint\nESS", ".1f", _NUMBERS,
        "Entropy-ESS of a group's heads on top of each other; it may lie below that of one of them.", (GROUPS,),
        has_error=True,
    ),
    Column("alone_entropy", "heads\nalone", ".1f", _NUMBERS, "The sum of the heads' own entropy-ESS.", (GROUPS,)),
    Column(
        "joint_relative_count", "joint\ncount", ".1f", _NUMBERS, "The joint ESS as a count.", (GROUPS,), has_error=True
    ),
    Column(
        "alone_relative_count", "counts\nalone", ".1f", _NUMBERS, "The sum of the heads' own counts.", (GROUPS,),
        has_error=True,
    ),
    Column("limits", "limits", "codes", "", "Codes of what limits the numbers.", _BOTH, first=True),
)  # fmt: skip


def columns(table: str, *, first: bool = False) -> tuple[Column, ...]:
    """The columns of a table, or those that are read first."""
    return tuple(column for column in COLUMNS if table in column.tables and (column.first or not first))


def chosen(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that a table has, in its order; NaN where one is missing."""
    values = dict[str, Any]()
    for column in columns(table):
        values[column.name] = row.get(column.name, math.nan)
        if column.has_error:
            values[f"{column.name}_error"] = row.get(f"{column.name}_error", math.nan)
    return values


def cell_text(column: Column, row: Mapping[str, Any]) -> str:
    """A cell as a reader sees it: a number with half the width of its interval, a text, or a dash."""
    value = row.get(column.name)
    if column.form == "codes":
        return ", ".join(value or ())
    if column.form == "text":
        return str(value)
    error = row.get(f"{column.name}_error")
    return number_text(math.nan if value is None else value, column.form, error or 0.0)


def number_text(value: float, form: str, error: float = 0.0) -> str:
    """A number by the form of a `Column`, with half the width of its interval; else a dash."""
    if not math.isfinite(value):
        return "–"
    if form == "bytes":
        return byte_count(value)
    if form == "norm":
        form = ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f"
    known = math.isfinite(error) and error > 0
    return format(value, form) + (f" ± {number_text(error, form)}" if known else "")


def markdown() -> str:
    """The table of all columns for the documentation."""
    rows = [
        f"| `{column.name}` | {column.line} | {column.unit} | {', '.join(column.tables)} | {column.meaning} |"
        for column in COLUMNS
    ]
    return "\n".join(["| name | column | unit | tables | meaning |", "|---|---|---|---|---|", *rows])
