"""What commands print of profiles: a row is a layer; of a large model, those with most and with least."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from statesize.io.text import listed
from statesize.report.document import Shown
from statesize.report.names import by_reason, cuts_name, short_names
from statesize.report.result_page import PageTable, ResultPage
from statesize.report.tables import COMPARED, MOST_LAYERS, LayerRow, comparison_table, layer_rows, table_of
from statesize.report.words import contrast, every_token, headline, layer_line, middle_cut, sink_note, what_suffices
from statesize.results.fields import (
    BOTH_SHARES,
    BY_UNIT,
    COLUMNS,
    FIGURE_HEADINGS,
    GROUP_HEADINGS,
    HEADINGS,
    Heading,
    number_text,
    told,
)
from statesize.results.profiled import group_rows, has_sinks
from statesize.results.summary import keeps_everything

if TYPE_CHECKING:
    from statesize.profiling import Profile
    from statesize.report.comparison import Comparison


_ENDS = 8
"""How many of each these are."""


def _pattern(names: Sequence[str]) -> str:
    """What short names stand for, such as model.layers.N.self_attn; the first and the last name where they differ."""
    short = short_names(names)
    patterns = {name.replace(f".{short[name]}.", ".N.", 1) for name in names}
    return patterns.pop() if len(patterns) == 1 else f"{names[0]} to {names[-1]}"


_MOST_TOLD = 4
"""Models of a comparison of which each has a sentence."""
_COMPARED_AT = "All at the cut named above; --wide has means over the measured cuts, and bytes at the end."
_WIDE_AT = (
    "ESS: numbers per channel that are carried past a cut; TSS: how many the layer can hold. Averages are means over "
    "{} and include sinks, as totals do; bytes of states are at the end of the text. Norm: how large what passes the "
    "cut is (Frobenius); its scale differs between kinds of layers."
)


def summary(profile: Profile, metric: str = "entropy", *, wide: bool = False) -> ResultPage:
    """One row per mixer, and what has to be known: how to read it, sinks, what was left out, what is enough.

    Args:
        profile: The profile.
        metric: The ESS of the rows.
        wide: All columns, and a table of heads that share a cache.

    Returns:
        The page, for a terminal.
    """
    rho = profile.attributes["relative_tolerances"]
    relative = f"σ > {rho[0]:g} σ₁" if rho else "relative tolerance"
    tables = [_wide(profile, relative) if wide else _narrow(profile, metric, relative)]
    if wide and (groups := [told(row) for row in group_rows(profile)]):
        table = table_of("Joint ESS of heads that share a cache, a channel of the cache", GROUP_HEADINGS, groups)
        tables.append(replace(table, headings=_headings(GROUP_HEADINGS, relative)))
    known, tests = what_suffices([profile])
    notes = [sink_note(profile), _notes(profile), " ".join([*known, *tests])]
    tables[-1] = replace(tables[-1], caption="\n".join(filter(None, (tables[-1].caption, *notes))))
    return ResultPage("Effective state-size", headline([profile], metric), (), tables)


def _headings(headings: Mapping[str, Heading], relative: str) -> dict[str, str]:
    return {name: heading.text.replace("relative tolerance", relative) for name, heading in headings.items()}


def _narrow(profile: Profile, metric: str, relative: str) -> PageTable:
    """Layer, ESS of its size, and the share in use with a bar."""
    layers, sinks = layer_rows(profile, metric), has_sinks(profile, metric)
    # Layers in the order of the model; of a large one by ESS, those with most and those with least.
    most, least = layers, list[LayerRow]()
    if len(layers) > MOST_LAYERS:
        ordered = sorted(layers, key=lambda row: row.order, reverse=True)
        most, least = ordered[:_ENDS], ordered[-_ENDS:]
    # Shares of caches and of states do not compare, so they stand in columns of their own, without bars.
    kinds = sorted({row.keeps_everything for row in layers})
    headings = ["layer", f"ESS\n({'entropy' if metric == 'entropy' else relative})"]
    headings += [*(["without\nsinks"] if sinks else []), "ceiling"]
    headings += [HEADINGS[f"middle_{'ceiling' if cache else 'state'}_utilisation"].text for cache in kinds]
    rows: list[Sequence[object]] = [
        [
            row.layer,
            Shown(math.nan, row.ess),
            *([row.sinkless] if sinks else []),
            number_text(row.ceiling, ".1f" if row.ceiling < 10 else ",.0f"),
            *(
                Shown(row.used if len(kinds) == 1 else math.nan, row.share if cache == row.keeps_everything else "")
                for cache in kinds
            ),
        ]
        for row in (*most, *least)
    ]
    rows[len(most) : len(most)] = [["…"]] if least else []
    rows += [[name, Shown(math.nan, "not measured"), *[""] * (len(headings) - 2)] for name in profile.not_measured]
    without, order, all_layers = " without sinks" if sinks else "", "", ""
    if least:
        order = f"The {len(most)} layers with most ESS{without}, and the {len(least)} with least"
        all_layers = f"--wide shows all {len(layers)} layers. N is {_pattern(profile.mixers)}. "
    count = int(profile.tokens.sizes["sequence"])
    texts = "" if count == 1 else f", averaged over {count:,} texts"
    filled = "" if all(kinds) else ", and a dash where the text is too short to fill the state"
    told = [
        f"ESS: numbers per channel that the layer carries past {middle_cut(profile)}{texts}.",
        *(["Without sinks: ESS without the column of the token that gets most attention."] if sinks else []),
        "Ceiling: the most ESS that there could be.",
        f"Share: ESS{without} divided by the ceiling{filled}.",
        every_token(profile),
    ]
    return PageTable(order, headings, rows, f"{all_layers}{' '.join(filter(None, told))}")


def _wide(profile: Profile, relative: str) -> PageTable:
    """All columns, but those that say nothing of this profile."""
    rows = profile.summary_rows()
    empty = {"measured"} if all(row["measured"] == row["units"] for row in rows) else set[str]()
    for name in ("state_utilisation", "ceiling_utilisation", *BY_UNIT, "faithfulness"):
        empty |= {name} if all(row[name] != row[name] for row in rows) else set()
    left_out = empty | {"model", "kind", "readout_total_entropy"}
    shown = {name: HEADINGS[name] for name in COLUMNS if name in HEADINGS and name not in left_out}
    cells = [told(row) | {"measured": f"{row['measured']} of {row['units']}"} for row in rows]
    return replace(table_of("", shown, cells, _WIDE_AT.format(cuts_name(profile))), headings=_headings(shown, relative))


def _notes(profile: Profile) -> str:
    """What was left out, and how far the observed run was from an unaltered one, in a paragraph."""
    source: dict[str, str] = profile.attributes.get("source") or {}
    notes = [f"weights: {source['weights']}"] if "weights" in source else []
    notes += [f"note: {source[key]}" for key in ("unused_weights", "tokenizer", "context") if key in source]
    notes += [f"skipped: {part}: {reason}" for part, reason in by_reason(profile.skipped).items()]
    notes += [f"{listed(mixers)}: {note}" for note, mixers in profile.notes.items()]
    differences = [row["run_difference"] for row in profile.summary_rows()]
    if not all(map(math.isnan, differences)):
        largest = np.nanmax(differences)
        changed = f"changed the model's last hidden state by at most {largest:.0e}" if largest else "changed nothing"
        notes.append(f"Measuring {changed}{'' if largest else ' in the model: its last hidden state is the same'}.")
    return " ".join(note if note.endswith(".") else f"{note}." for note in notes)


def comparison_page(profiles: Sequence[Profile], comparison: Comparison, *, wide: bool = False) -> ResultPage:
    """One row per model, of the figures that are known of any, and what makes them less comparable."""
    table = comparison_table(comparison.models, profiles, *([] if wide else [COMPARED]))
    headings = _headings({name: FIGURE_HEADINGS[name] for name in table.headings}, "relative tolerance")
    told = [*filter(None, map(layer_line, profiles))] if 1 < len(profiles) <= _MOST_TOLD else []
    caches = {all(keeps_everything(one.mixer(name)) for name in one.mixers) for one in profiles}
    both = len(caches) > 1 or {"state_utilisation", "ceiling_utilisation"} <= headings.keys()
    told += [
        _WIDE_AT.format(cuts_name(*profiles)) if wide else _COMPARED_AT,
        *([BOTH_SHARES] if both else []),
        *(f"note: {one}" for one in comparison.notes),
    ]
    table = replace(table, title="", headings=headings, caption="\n".join(told))
    return ResultPage("Side by side", contrast(profiles), (), [table])
