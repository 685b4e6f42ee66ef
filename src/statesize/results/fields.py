"""All quantities of a profile: one list is the source of arrays, tables, JSON documents, pages and documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from statesize.io.text import byte_count

Array = NDArray[np.float32 | np.float64]
SEQUENCE, UNIT, POSITION = "sequence", "unit", "position"
"""Dimensions of arrays; the second stands for one of UNITS."""
UNITS = ("head", "channel", "group")
LAYERS, MODELS = "layers", "models"
"""Tables of a profile's layers, and of the models of a comparison."""


@dataclass(frozen=True)
class Field:
    """A quantity: an array of each mixer, a column of tables, or both.

    Attributes:
        name: As documents, data frames and datasets have it; NAME_error beside it is half the width of its interval of
            95 %.
        unit: Of its numbers.
        meaning: What it is, in a sentence.
        tables: The tables that have it as a column.
        heading: As these have it; a narrow one breaks at the line end.
        form: A format specification, "bytes", "norm", "text", or "codes".
        first: The tables of which it is one of the columns that are read first, which the terminal shows.
        has_error: Whether NAME_error stands beside it.
        dims: Dimensions of its array behind the sequence; None where it has none.
        dtype: Of its array. The operator's scale need not fit into float32: 1e50, or a bound that would round to 0.
    """

    name: str
    unit: str
    meaning: str
    tables: tuple[str, ...] = ()
    heading: str = ""
    form: str = ""
    first: tuple[str, ...] = ()
    has_error: bool = False
    dims: tuple[str, ...] | None = None
    dtype: DTypeLike = np.float32

    @property
    def line(self) -> str:
        """The heading on one line."""
        return self.heading.replace("\n", " ")


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
SINKS = ("sink_share", "sink_position", "without_sink")
_NUMBERS = "numbers per channel"
_BOTH, _LAYERS, _MODELS = (LAYERS, MODELS), (LAYERS,), (MODELS,)
_CUTS = (UNIT, POSITION)
FIELDS = (
    Field("model", "", "The model.", _BOTH, "model", "text", first=_BOTH),
    Field("layer", "", "The mixer's module name in the model.", _LAYERS, "layer", "text", first=_LAYERS),
    Field("kind", "", "What the mixer is.", _LAYERS, "kind", "text"),
    Field("loss", "nats per token", "Mean cross-entropy, where it is known.", _MODELS, "loss", ".2f", first=_MODELS),
    Field("ess", _NUMBERS, "Entropy-ESS at the cut nearest to the middle of each text, averaged over texts and heads.",
          _BOTH, "ESS", ".1f", first=_BOTH, has_error=True),
    Field("without_sink", _NUMBERS, "ESS without the column of the token that gets most attention, in heads where that "
          "token is a sink.", _BOTH, "without\nsink", ".1f", first=_BOTH, dims=(UNIT,)),
    Field("ceiling", _NUMBERS, "The most that ESS could be there: what the layer holds, or the tokens before or after "
          "the cut.", _BOTH, "ceiling", ",.0f", first=_BOTH, dims=(POSITION,)),
    Field("share_of_state", "", "ESS divided by the ceiling, of layers with a fixed state that the text can fill.",
          _BOTH, "share\nof state", "z.0%", first=_BOTH),
    Field("share_of_ceiling", "", "ESS divided by the ceiling, of layers that keep every token. It does not compare "
          "with a share of a state.", _BOTH, "share of\nceiling", "z.0%", first=_BOTH),
    Field("tss", _NUMBERS, "Theoretical state-size: what the layer can hold in a channel at the end of the longest "
          "text.", _BOTH, "TSS", ",.0f", dims=()),
    Field("state_bytes", "bytes", "What the model's cache holds at the end.", _BOTH, "state\nbytes", "bytes", dims=()),
    Field("units", "", "Heads or channels of the layer.", _LAYERS, "heads", ",.0f"),
    Field("measured", "", "How many of them were measured.", _LAYERS, "measured", ",.0f"),
    Field("groups", "", "Stored inputs that several heads read.", _LAYERS, "groups", ",.0f"),
    Field("average_entropy", _NUMBERS, "Entropy-ESS averaged over texts, measured cuts and heads.", _BOTH,
          "average\nESS", ".1f", has_error=True),
    Field("average_relative_count", _NUMBERS, "How many singular values exceed the first relative tolerance times the "
          "largest, averaged likewise.", _BOTH, "average\ncount", ".1f", has_error=True),
    Field("joint_entropy", _NUMBERS, "Entropy-ESS of all heads that read one stored input, on top of each other, "
          "averaged likewise; it may lie below that of one of them.", _LAYERS, "joint\nESS", ".1f", has_error=True),
    Field("total_entropy", "numbers", "Entropy-ESS averaged over texts and measured cuts, summed over stored channels; "
          "what several heads read counts once, by their joint ESS.", _BOTH, "total\nESS", ",.0f", has_error=True),
    Field("norm", "", "Average Frobenius norm of H_i. Each kind of layer has its own scale.", _BOTH, "norm", "norm",
          dims=_CUTS, dtype=np.float64),
    Field("state_utilisation", "", "Entropy-ESS divided by TSS, averaged over the cuts where a fixed state is what "
          "limits it.", _BOTH, "average share\nof state", "z.0%"),
    Field("ceiling_utilisation", "", "Entropy-ESS divided by its ceiling over the middle half of the text, of layers "
          "that keep every token.", _BOTH, "average share\nof ceiling", "z.0%"),
    Field("sink_share", "", "Attention that the token with most of it takes.", _LAYERS, "sink\nshare", "z.0%",
          dims=(UNIT,)),
    Field("sink_position", "tokens", "Where that token is, of most texts and heads.", _LAYERS, "sink\nat", ",.0f",
          dims=(UNIT,)),
    Field("few_cuts_entropy", _NUMBERS, "Beside its variant.", _LAYERS, "ESS at\nthree cuts", ".1f", dims=(UNIT,)),
    Field("variant_entropy", _NUMBERS, "By the settings weights, skip_first and squares.", _LAYERS, "its\nvariant",
          ".1f", dims=(UNIT,)),
    Field("faithfulness", "", "Largest difference of T u from what the unaltered model computed, relative to the "
          "largest value.", _LAYERS, "difference\nto model", ".0e", dims=()),
    Field("run_difference", "", "That of the last hidden state of the observed run.", _LAYERS, "difference\nof run",
          ".0e", dims=()),
    Field("engine", "", "The algorithm that measured it.", _LAYERS, "engine", "text"),
    Field("limits", "", "Codes of what limits the numbers.", _BOTH, "limits", "codes", first=_BOTH),
    Field("entropy", _NUMBERS, "Entropy-ESS.", dims=_CUTS),
    Field("entropy_bound", _NUMBERS, "How far entropy-ESS can be off.", dims=_CUTS, dtype=np.float64),
    Field("relative_count", _NUMBERS, "Relative tolerance-ESS.", dims=(*_CUTS, "relative_threshold")),
    Field("relative_lower", _NUMBERS, "Its lower bound.", dims=(*_CUTS, "relative_threshold")),
    Field("relative_upper", _NUMBERS, "Its upper bound.", dims=(*_CUTS, "relative_threshold")),
    Field("count", _NUMBERS, "Tolerance-ESS.", dims=(*_CUTS, "threshold")),
    Field("lower", _NUMBERS, "Its lower bound.", dims=(*_CUTS, "threshold")),
    Field("upper", _NUMBERS, "Its upper bound.", dims=(*_CUTS, "threshold")),
    Field("error_bound", "", "Bound on the error of each singular value.", dims=_CUTS, dtype=np.float64),
    Field("state_size", _NUMBERS, "TSS at the cut; NaN where it is unknown.", dims=(POSITION,)),
    Field("binds", "", "1 where the layer's own size is what limits ESS.", dims=(POSITION,)),
    Field("cuts", "", "How many cuts there are.", dims=()),
    Field("middle", "tokens", "The measured cut that is nearest to the middle.", dims=()),
)  # fmt: skip
"""All quantities, in the order of columns."""


def columns(table: str, *, first: bool = False) -> tuple[Field, ...]:
    """The columns of a table, or those that are read first."""
    return tuple(field for field in FIELDS if table in (field.first if first else field.tables))


def arrays() -> dict[str, Field]:
    """The quantities that are arrays of mixers, by name."""
    return {field.name: field for field in FIELDS if field.dims is not None}


def array_dims(unit: str) -> dict[str, tuple[str, ...]]:
    """The dimensions of each variable of a mixer's dataset, whose units are heads, channels or groups."""
    dims = {
        name: (SEQUENCE, *(unit if dim == UNIT else dim for dim in field.dims or ()))
        for name, field in arrays().items()
    }
    return dims | {"stratum": (unit,)} | {name: (name,) for name in (unit, POSITION, "threshold", "relative_threshold")}


def chosen(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that a table has, in its order; NaN where one is missing."""
    names = (name for field in columns(table) for name in (field.name, f"{field.name}_error")[: 1 + field.has_error])
    return {name: row.get(name, math.nan) for name in names}


def number_text(value: float, form: str, error: float = 0.0) -> str:
    """A number by the form of a `Field`, with half the width of its interval; else a dash."""
    if not math.isfinite(value):
        return "–"
    if form == "bytes":
        return byte_count(value)
    if form == "norm":
        form = ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f"
    known = math.isfinite(error) and error > 0
    return format(value, form) + (f" ± {number_text(error, form)}" if known else "")
