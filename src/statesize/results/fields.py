"""What a measurement of a mixer holds and what tables say of it: names, dimensions, units and words, each once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from statesize.io.text import byte_count
from statesize.measurement.settings import SINK
from statesize.measurement.statistics import between

Array = NDArray[np.float32 | np.float64]


class Field(NamedTuple):
    """An array of one mixer over one sequence; UNIT stands for its heads or channels.

    Attributes:
        dtype: The operator's scale need not fit into float32: 1e50, or a bound that would round to 0.
    """

    name: str
    dims: tuple[str, ...]
    dtype: DTypeLike = np.float32


class CountFields(NamedTuple):
    """The fields of one kind of counts: between which bounds they lie, and the dimension of their tolerances."""

    name: str
    lower: str
    upper: str
    threshold: str


BOTH_SHARES = "A share of a state does not compare with one of a cache."
MIDDLE_SHARES = ("middle_state_utilisation", "middle_ceiling_utilisation")
UNIT = "unit"
UNITS = ("head", "channel", "group")
BY_SEQUENCE = ("state_bytes", "tss", "cuts", "faithfulness", "run_difference", "middle")
"""Bytes of the model's own cache and TSS at the end of the sequence, how many cuts it has, the largest relative
difference of T u from the unaltered model's, that of the last hidden state, and the cut nearest to the middle; NaN
where not known."""
SINKS = ("sink_share", "sink_position", "sinkless_entropy")
"""For each head of attention: the share of the token that gets most attention, which it is, and entropy-ESS at the
middle without its column; NaN for what is no attention, and the last where that share is small."""
VARIANT = ("few_cuts_entropy", "variant_entropy")
"""For each head or channel, where a variant was asked for: entropy-ESS at the same three cuts, and the variant's."""
BY_UNIT = (*SINKS, *VARIANT)
COUNTS = (
    CountFields("relative_count", "relative_lower", "relative_upper", "relative_threshold"),
    CountFields("count", "lower", "upper", "threshold"),
)
_BY_UNIT = (UNIT, "position")
FIELDS = {
    field.name: field
    for field in (
        Field("entropy", _BY_UNIT),
        Field("entropy_bound", _BY_UNIT, np.float64),
        *(Field(name, (*_BY_UNIT, counts.threshold)) for counts in COUNTS for name in counts[:3]),
        Field("norm", _BY_UNIT, np.float64),
        Field("error_bound", _BY_UNIT, np.float64),
        Field("state_size", ("position",)),
        Field("ceiling", ("position",)),
        Field("binds", ("position",)),
    )
}


MIXER_DIMS: dict[str, dict[str, tuple[str, ...]]] = {
    unit: {
        **{name: ("sequence", *(unit if dim == UNIT else dim for dim in field.dims)) for name, field in FIELDS.items()},
        **dict.fromkeys(BY_SEQUENCE, ("sequence",)),
        **dict.fromkeys(BY_UNIT, ("sequence", unit)),
        "stratum": (unit,),
        **{name: (name,) for name in (unit, "position", "threshold", "relative_threshold")},
    }
    for unit in UNITS
}
"""The dimensions of each variable of a mixer's dataset, by whether its units are heads, channels or groups."""


class Heading(NamedTuple):
    """How tables for people head a column and write its numbers.

    Attributes:
        text: A narrow column breaks at the line end.
        form: A format specification, "bytes", "norm", or "text".
    """

    text: str
    form: str

    @property
    def line(self) -> str:
        """The heading on one line, as a page has it."""
        line = self.text.replace("\n", " ").replace(" (", ", ").replace(")", "")
        return line[:1].upper() + line[1:]


HEADINGS = {
    "model": Heading("model", "text"),
    "layer": Heading("layer", "text"),
    "kind": Heading("kind", "text"),
    "tss": Heading("TSS", ",.0f"),
    "total_tss": Heading("total\nTSS", ",.0f"),
    "state_bytes": Heading("state\nbytes", "bytes"),
    "measured": Heading("measured", "text"),
    "average_entropy": Heading("average ESS\n(entropy)", ".1f"),
    "average_relative_count": Heading("average ESS\n(relative tolerance)", ".1f"),
    "total_entropy": Heading("total ESS\n(entropy)", ",.0f"),
    "total_relative_count": Heading("total ESS\n(relative tolerance)", ",.0f"),
    "readout_total_entropy": Heading("total of readouts\n(entropy)", ",.0f"),
    "norm": Heading("norm", "norm"),
    "state_utilisation": Heading("average share\nof state", "z.0%"),
    "ceiling_utilisation": Heading("average share\nof ceiling", "z.0%"),
    "sink_share": Heading("sink\nshare", "z.0%"),
    "middle_entropy": Heading("ESS at the\nmiddle (entropy)", ".1f"),
    "middle_ceiling": Heading("ceiling at\nthe middle", ",.0f"),
    "middle_state_utilisation": Heading("share of\nstate", "z.0%"),
    "middle_ceiling_utilisation": Heading("share of\nceiling", "z.0%"),
    "middle_bytes": Heading("bytes at\nthe middle", "bytes"),
    "sinkless_entropy": Heading("the same without\nsinks", ".1f"),
    "few_cuts_entropy": Heading("ESS at few\ncuts (entropy)", ".1f"),
    "variant_entropy": Heading("its\nvariant", ".1f"),
    "faithfulness": Heading("difference\nto model", ".0e"),
}
"""The columns of tables for people, in their order; NAME_error beside NAME is half the width of its interval."""
FIGURE_HEADINGS = HEADINGS | {"tss": Heading("largest TSS\nper channel", ",.0f")}
"""Those of a comparison, whose numbers are of whole models."""

UNKNOWN = "unknown"
SIZES = ("tss", "total_tss", "state_bytes", "middle_bytes")
"""What every layer has, known or not; other numbers may be missing because there are none."""


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table, with a word where a size is not known, and then for the share of the state that is used."""
    shares = ("state_utilisation",) if math.isnan(row["tss"]) else ()
    unknown = [name for name in (*SIZES, *shares) if math.isnan(row.get(name, 0))]
    return {**row, **dict.fromkeys(unknown, UNKNOWN)}


def number_text(value: float, form: str, error: float = 0.0) -> str:
    """A number by the form of a `Heading`, with half the width of its interval; else a dash."""
    if not math.isfinite(value):
        return "-"
    if form == "bytes":
        return byte_count(value)
    if form == "norm":
        form = ".1e" if 0 < value < 0.01 else ".2f" if value < 10 else ".1f" if value < 100 else ",.0f"
    if error > value >= 0:
        # No quantity of a table falls below 0.
        return f"{format(value, form)} [0, {number_text(value + error, form)}]"
    return format(value, form) + (f" ± {number_text(error, form)}" if error else "")


def range_text(values: Sequence[float], form: str) -> str:
    """The least and the largest of some numbers."""
    return between(min(values), max(values), partial(number_text, form=form))


def cell_texts(row: Mapping[str, Any], headings: Mapping[str, Heading]) -> dict[str, str]:
    """The cells of a row of `told`; counts as their bounds, other numbers with half the width of their interval."""

    def text(name: str, form: str) -> str:
        value, error = row[name], row.get(f"{name}_error", 0.0)
        if form == "text" or value == UNKNOWN:
            return str(value)
        if name.endswith("relative_count") and error > 0:
            return range_text([max(value - error, 0), value + error], form)
        return number_text(value, form, error)

    return {name: text(name, heading.form) for name, heading in headings.items()}


COLUMNS = {
    "model": "The model.",
    "layer": "The mixer's module name in the model.",
    "kind": "What the mixer is.",
    "tss": "Theoretical state-size: real numbers per channel that the layer's own recurrence can hold. Softmax "
    "attention keeps every past token, so its TSS grows with position: the largest is shown. Unknown where neither the "
    "layer nor impulses at two lengths tell it.",
    "state_bytes": "Bytes that the model's own cache holds for the layer at the end of the longest sequence: states, "
    "or keys and values of all tokens that it sees, and what short convolutions inside it keep.",
    "units": "Heads or channels of the layer.",
    "measured": "How many of them were measured; where not all were, averages and totals are estimates.",
    "average_entropy": "Entropy-ESS, exp of the entropy of the Hankel singular values, averaged over sequences, "
    "positions and heads.",
    "average_entropy_error": "Half the width of its confidence interval of 95 %, for heads, channels and positions "
    "that were not measured.",
    "average_relative_count": "Relative tolerance-ESS, the number of Hankel singular values above ρ times the "
    "largest, averaged in the same way.",
    "average_relative_count_error": "Half the width of its interval: that of confidence, likewise, and of the bounds "
    "between which counts lie that are not exact.",
    "total_entropy": "Entropy-ESS summed over the channels that the layer stores, averaged over sequences and "
    "positions; channels that several heads read count once, by their joint ESS.",
    "total_relative_count": "Relative tolerance-ESS summed over stored channels, averaged in the same way.",
    "total_entropy_error": "Half the width of the confidence interval of the total entropy-ESS, likewise.",
    "total_relative_count_error": "Half the width of that of the total relative tolerance-ESS, likewise.",
    "readout_total_entropy": "Entropy-ESS of each head summed over its channels, as if heads shared nothing.",
    "readout_total_entropy_error": "Half the width of its confidence interval.",
    "readout_total_relative_count": "Relative tolerance-ESS of each head summed over its channels, likewise.",
    "readout_total_relative_count_error": "Half the width of its confidence interval.",
    "norm": "Frobenius norm of what passes from the past to the future, averaged as above; a layer that erases "
    "lowers it even where its ESS stays. Each kind of layer has its own scale.",
    "state_utilisation": "Entropy-ESS divided by the TSS of a layer with a fixed state, averaged over sequences, heads "
    "and the cuts with at least TSS tokens before and after; a dash where the text is too short to have any.",
    "ceiling_utilisation": "Entropy-ESS, sinks included, divided by its ceiling, for a layer whose cache keeps every "
    f"token, averaged over the middle half of each sequence. {BOTH_SHARES}",
    "sink_share": "Share of the attention that one token takes, the one that gets most, averaged over sequences and "
    "heads; of softmax attention.",
    "sink_position": "Where that token is, of most sequences and heads.",
    "middle_entropy": "Entropy-ESS at the cut nearest to the middle of each sequence, averaged over sequences and "
    "heads.",
    "sinkless_entropy": "The same, without the column of the token that gets most attention, in heads where it "
    f"{SINK}: beside it, entropy-ESS hardly shows the other tokens.",
    "few_cuts_entropy": "Entropy-ESS at a quarter, half and three quarters of each sequence, beside its variant.",
    "variant_entropy": "The same as the settings `weights`, `skip_first` and `squares` ask: with each column times the "
    "norm of what it carries, without the first columns, or as the entropy of σ².",
    "faithfulness": "The largest difference, over sequences, of the operator applied to the layer's input, and of the "
    "layer's output where it was measured, from what the unaltered model computed, relative to the largest value; not "
    "known where a layer reports a matrix that could not be compared.",
    "run_difference": "The largest difference, over sequences, of the last hidden state in the observed run from that "
    "of the unaltered model, relative to the largest value.",
    "cause": "Why a layer without numbers was not measured, that its size is unknown, or which part was; else empty.",
}
"""What the columns of a summary are: one row per mixer."""

MAIN_COLUMNS = (
    "model", "layer", "kind", "tss", "middle_entropy", "sinkless_entropy", "average_entropy", "state_utilisation",
    "ceiling_utilisation", "norm", "state_bytes", "cause",
)  # fmt: skip
"""Those that one reads first."""

GROUP_COLUMNS = {
    "model": "The model.",
    "layer": "The mixer's module name in the model; of layers that share a cache, the last.",
    "groups": "Inputs that it stores, each for several heads, such as key-value heads or one latent.",
    "readouts": "Heads that read each of them, in all layers that share the cache.",
    "tss": "Numbers per channel that are stored; of a cache that grows, at the end of the longest sequence.",
    "joint_entropy": "Entropy-ESS of the operators of a group's heads on top of each other, averaged over sequences, "
    "positions and groups. It may lie below that of its largest head, whose largest singular value then leads.",
    "joint_entropy_error": "Half the width of its confidence interval of 95 %, for the choice of groups.",
    "alone_entropy": "Numbers that they carry one by one: the sum of their entropy-ESS.",
    "joint_relative_count": "The joint ESS as a number of singular values above ρ times the largest.",
    "joint_relative_count_error": "Half the width of its confidence interval, likewise.",
    "alone_relative_count": "The sum of such numbers over the heads of a group.",
    "alone_relative_count_error": "Half the width of its interval.",
}
"""What the columns of a table of groups are: one row per mixer whose heads share what it stores."""
GROUP_HEADINGS = {
    "model": HEADINGS["model"],
    "layer": HEADINGS["layer"],
    "groups": Heading("groups", ",.0f"),
    "readouts": Heading("heads\neach", ",.0f"),
    "tss": Heading("stored\n(TSS)", ",.0f"),
    "joint_entropy": Heading("joint ESS\n(entropy)", ".1f"),
    "alone_entropy": Heading("heads alone\n(entropy)", ".1f"),
    "joint_relative_count": Heading("joint ESS\n(relative tolerance)", ".1f"),
    "alone_relative_count": Heading("heads alone\n(relative tolerance)", ".1f"),
}

_OF_MODELS = {
    "middle_bytes": "Bytes that the model's own cache holds at the middle, on average over sequences, keys too.",
    "middle_ceiling": "The most that ESS could be there: what the layer holds, or the tokens before or after the cut.",
    "middle_state_utilisation": "Entropy-ESS without sinks divided by the ceiling, of the layers with a fixed state.",
    "middle_ceiling_utilisation": f"The same of the layers whose cache keeps every token. {BOTH_SHARES}",
    "total_tss": "Theoretical state-size summed over the channels that all layers store.",
}
FIGURES = {
    name: (COLUMNS | _OF_MODELS)[name]
    for name in (
        "state_bytes", "middle_bytes", "middle_entropy", "sinkless_entropy", "middle_ceiling", *MIDDLE_SHARES, "tss",
        "total_tss", "average_entropy", "average_relative_count", "total_entropy", "total_relative_count",
        "readout_total_entropy", "norm", "state_utilisation", "ceiling_utilisation",
    )
}  # fmt: skip
"""What the numbers of a ComparedModel are; those of layers as means over the channels of all, bytes and totals as sums.

NaN where one is not known.
"""
