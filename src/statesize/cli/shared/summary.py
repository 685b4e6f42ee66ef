"""What commands print of profiles and plans: a row is a layer; of a large model, those with most and with least."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from statesize.adapters.observation import SHARED
from statesize.cli.shared.printing import Printing
from statesize.cli.shared.provenance import called_again
from statesize.cli.shared.table import fitting_rows, show
from statesize.io.progress import duration
from statesize.io.steps import Plan, PlannedStep
from statesize.io.text import byte_count, counted, listed
from statesize.report.document import Shown
from statesize.report.names import by_reason, model_title, short_names
from statesize.report.on_record import standing, what_suffices
from statesize.report.result_page import PageTable, ResultPage
from statesize.report.tables import COMPARED, MOST_LAYERS, LayerRow, comparison_table, has_sinks, layer_rows, table_of
from statesize.report.words import contrast, headline, model_line, sink_note
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
from statesize.results.profiled import group_rows
from statesize.results.summary import keeps_everything

if TYPE_CHECKING:
    from statesize.profiling import Profile
    from statesize.report.comparison import Comparison


_ENDS = 8
"""How many of each these are."""
_NAMED = 4
"""Layers with most that a note names."""
_NORM = "norm: how large what passes the cut is (Frobenius); its scale differs between kinds of layers."


def _shown_layers(title: str, layers: list[LayerRow], by: str) -> list[tuple[str, list[LayerRow]]]:
    """Rows with what stands above them: all, or of a large model those with most and those with least."""
    if len(layers) <= MOST_LAYERS:
        return [(title, layers)]
    ordered = sorted(layers, key=lambda row: row.order, reverse=True)
    shown = [(f"{title}, most{by}", ordered[:_ENDS]), (f"{title}, least{by}", ordered[-_ENDS:])]
    between = [row for row in _leading(layers) if by and row in ordered[_ENDS:-_ENDS]]
    return [*shown, (f"{title}, most with sinks, of the others", between)] if between else shown


def _leading(
    layers: list[LayerRow], figure: Callable[[LayerRow], float] = lambda row: row.with_sinks
) -> list[LayerRow]:
    """The layers with most."""
    known = (row for row in layers if math.isfinite(figure(row)))
    return sorted(known, key=figure, reverse=True)[:_NAMED]


def _leading_names(layers: list[LayerRow]) -> str:
    """The layers with most, with sinks and without them."""
    first, second = (
        ", ".join(row.layer for row in some) for some in (_leading(layers, lambda row: row.order), _leading(layers))
    )
    return (
        f"Which layers remember most of the text? By ESS without sinks, {first}. Which take most numbers to be kept as "
        f"they are, with their sinks? By ESS, {second}."
    )


def _pattern(names: Sequence[str]) -> str:
    """What short names stand for, such as model.layers.N.self_attn; the first and the last name where they differ."""
    short = short_names(names)
    patterns = {name.replace(f".{short[name]}.", ".N.", 1) for name in names}
    return patterns.pop() if len(patterns) == 1 else f"{names[0]} to {names[-1]}"


def _span(names: Sequence[str]) -> str:
    """The first and last of some names, such as 12–24."""
    return names[0] if len(names) == 1 else f"{names[0]}–{names[-1]}"


_MOST_TOLD = 4
"""Models of a comparison of which each has a sentence."""
_MOST_PLANNED = 4
"""Rows of a plan, which then has at most 12 lines."""
_COMPARED_AT = "All at the middle of the text, as above; --wide has means over all cuts, and bytes at the end."
_WIDE_AT = (
    f"Averages, shares of states and ceilings, and norm are means over cuts; bytes of states are at the end. {_NORM}"
)


def summary(
    profiles: Sequence[Profile], metric: str = "entropy", *, wide: bool = False, weights: str = ""
) -> ResultPage:
    """One row per mixer, and below what was left out, and where a model of such weights stands among others."""
    rho = profiles[0].attributes["relative_tolerances"]
    relative = f"σ > {rho[0]:g} σ₁" if rho else "relative tolerance"
    tables = [_wide(profiles, relative) if wide else _narrow(profiles, metric, relative)]
    groups = [group_rows(profile) for profile in profiles]
    about = "Joint ESS of heads that share a cache"
    shared = [told(row) for rows in groups for row in rows if wide or len(rows) <= MOST_LAYERS]
    if shared:
        table = table_of(f"{about}, a channel of the cache", GROUP_HEADINGS, shared)
        tables.append(replace(table, headings=_headings(GROUP_HEADINGS, relative)))
    lack = [] if len(shared) == sum(map(len, groups)) else [f"{about}: --wide shows it."]
    notes = [*lack, *_notes(profiles), *standing(profiles, weights), *what_suffices(profiles)]
    tables[-1] = replace(tables[-1], caption="\n".join(filter(None, (tables[-1].caption, *notes))))
    return ResultPage("Effective state-size", headline(profiles, metric).sentence, (), tables)


def _headings(headings: Mapping[str, Heading], relative: str) -> dict[str, str]:
    return {name: heading.text.replace("relative tolerance", relative) for name, heading in headings.items()}


def _narrow(profiles: Sequence[Profile], metric: str, relative: str) -> PageTable:
    """Layer, ESS of its size, norm, and the share in use with a bar."""
    rows: list[Sequence[object]] = []
    folded: list[str] = []
    named = "entropy" if metric == "entropy" else relative
    sinks = any(has_sinks(profile, metric) for profile in profiles)
    shown = [layer_rows(profile, metric) for profile in profiles]
    # Shares of caches and of states do not compare, so they stand in columns of their own.
    kinds = sorted({row.keeps_everything for layers in shown for row in layers})
    headings = ["layer", f"ESS\n({named})", *(["without\nsinks"] if sinks else []), "ceiling", "norm"]
    used = "used of\n" if not sinks else "used,\nwithout sinks,\nof "
    headings += [f"{used}{'ceiling' if cache else 'state'}" for cache in kinds]
    for profile, layers in zip(profiles, shown, strict=True):
        own = has_sinks(profile, metric)
        parts = _shown_layers(model_title(profile), layers, ", without sinks" if own else "")
        for title, row in ((title, row) for title, part in parts for row in (None, *part)):
            if row is None:
                rows += [[], [title]] if rows else [[title]]
                continue
            # Bars would set them against each other.
            share = row.used if len(kinds) == 1 else math.nan
            used = Shown(share, row.share)
            rows.append(
                [
                    row.layer,
                    Shown(math.nan, row.ess),
                    *([row.sinkless] if sinks else []),
                    number_text(row.ceiling, ".1f" if row.ceiling < 10 else ",.0f"),
                    row.norm,
                    *(used if cache == row.keeps_everything else Shown(math.nan, "") for cache in kinds),
                ]
            )
        lost = Shown(math.nan, "not measured")
        rows += [[name, lost, *[""] * (len(headings) - 2)] for name in profile.not_measured]
        if len(profile.mixers) > MOST_LAYERS:
            span = _span(list(short_names(profile.mixers).values()))
            by = "ESS without sinks" if own else "ESS"
            folded += [
                f"most, least: of {len(profile.mixers)} layers, the {_ENDS} with most and the {_ENDS} with least {by}; "
                f"--wide shows all. Layers {span} are {_pattern(profile.mixers)}.",
                *([_leading_names(layers)] if own else []),
            ]
    without = " without sinks" if sinks else ""
    shares = {
        False: f"used: ESS{without} as a share of the state, where the text is long enough to fill it.",
        True: f"used: ESS{without} as a share of the ceiling, the tokens that could be kept.",
    }
    texts = counted(max(int(one.tokens.sizes["sequence"]) for one in profiles), "text")
    said = [
        f"All at one cut, the middle, of {texts}. ESS: numbers per channel that the layer carries past it; ceiling: "
        f"the most it could carry there; {_NORM}",
        *(["without sinks: ESS without the column of a sink."] if sinks else []),
        *(shares[cache] for cache in kinds),
        *folded,
    ]
    return PageTable("", headings, rows, "\n".join(said))


def _wide(profiles: Sequence[Profile], relative: str) -> PageTable:
    """All columns, but those that say nothing of these profiles."""
    rows = [row for profile in profiles for row in profile.summary_rows()]
    empty = {"measured"} if all(row["measured"] == row["units"] for row in rows) else set[str]()
    for name in ("state_utilisation", "ceiling_utilisation", *BY_UNIT, "faithfulness"):
        empty |= {name} if all(row[name] != row[name] for row in rows) else set()
    left_out = empty | {"kind", "readout_total_entropy"}
    shown = {name: HEADINGS[name] for name in COLUMNS if name in HEADINGS and name not in left_out}
    cells = [told(row) | {"measured": f"{row['measured']} of {row['units']}"} for row in rows]
    return replace(table_of("", shown, cells), headings=_headings(shown, relative))


def _notes(profiles: Sequence[Profile]) -> list[str]:
    """What was left out, and how far the observed runs were from unaltered ones."""
    notes: list[str] = []
    for profile in profiles:
        name = f"{profile.model}: " if len(profiles) > 1 else ""
        source: dict[str, str] = profile.attributes.get("source") or {}
        notes += [f"{name}{key}: {source[key]}" for key in ("task", "weights") if key in source]
        notes += [f"{name}note: {source[key]}" for key in ("unused_weights", "tokenizer") if key in source]
        notes += [f"{name}{sinks}"] if (sinks := sink_note(profile)) else []
        notes += [
            f"{name}skipped: {part}: {reason}" for part, reason in by_reason(profile.attributes["skipped"]).items()
        ]
        notes += [f"{name}{listed(mixers)}: {note}" for note, mixers in profile.notes.items()]
    differences = [row["run_difference"] for profile in profiles for row in profile.summary_rows()]
    if not all(map(math.isnan, differences)):
        largest = np.nanmax(differences)
        changed = f"changed the model's last hidden state by at most {largest:.0e}" if largest else "changed nothing"
        notes.append(f"Measuring {changed}{'' if largest else ' in the model: its last hidden state is the same'}.")
    return notes


def comparison_page(
    profiles: Sequence[Profile], comparison: Comparison, titles: Sequence[str], *, wide: bool = False
) -> ResultPage:
    """One row per model, of the figures that are known of any, and what makes them less comparable."""
    table = comparison_table(comparison.models, titles, *([] if wide else [COMPARED]))
    headings = _headings({name: FIGURE_HEADINGS[name] for name in table.headings}, "relative tolerance")
    told = [*map(model_line, profiles)] if 1 < len(profiles) <= _MOST_TOLD else []
    caches = {all(keeps_everything(one.mixer(name)) for name in one.mixers) for one in profiles}
    both = len(caches) > 1 or {"state_utilisation", "ceiling_utilisation"} <= headings.keys()
    told += [
        _WIDE_AT if wide else _COMPARED_AT,
        *([BOTH_SHARES] if both else []),
        *(f"note: {one}" for one in comparison.notes),
    ]
    table = replace(table, title="", headings=headings, caption="\n".join(told))
    return ResultPage("Side by side", contrast(profiles, titles), (), [table])


def show_plan(model: str, plan: Plan[Any], printing: Printing, notes: Sequence[str] = ()) -> None:
    """Print about how long a command would take, a row for steps alike but for their names, and the command's notes."""
    memory = "" if plan.memory is None else f"{byte_count(plan.memory)} of memory with the model, "
    finding = f"About {duration(plan.seconds)} after loading, {memory}at this machine's speed of just now."
    names = [step.name.removesuffix(SHARED) for step in plan.steps]
    short, alike = short_names(names), defaultdict[PlannedStep, list[PlannedStep]](list)
    for step in plan.steps:
        alike[replace(step, name="")].append(step)
    rows = [
        (
            _planned_layers([short[step.name.removesuffix(SHARED)] for step in some], list(short.values())),
            *(f"{sum(step.seconds for step in some):,.1f}", *some[0].cells.values()),
        )
        for some in alike.values()
    ]
    headings, fitting = ("what", "seconds", *plan.steps[0].cells), fitting_rows(len(rows), _MOST_PLANNED)
    more = [f"… and {len(rows) - fitting} rows more, which --json prints."] if len(rows) > fitting else []
    left_out = [{"name": part, "reason": reason} for part, reason in plan.skipped.items()]
    skipped = [f"skipped: {part}: {reason}" for part, reason in by_reason(plan.skipped).items()]
    table = PageTable("", headings, rows[:fitting], "\n".join([*more, *skipped, *notes]))
    document = {"model": model, "seconds": plan.seconds, "memory": plan.memory, **plan.facts}
    document |= {"steps": [asdict(step) for step in plan.steps], "skipped": left_out}
    show(ResultPage("Plan", "\n".join(filter(None, (finding, plan.work))), (), [table]), document, printing)
    printing.next(*called_again(without="--plan"))


def _planned_layers(names: list[str], every: list[str]) -> str:
    """A range of layers, with their number where others stand between them."""
    between = every.index(names[-1]) - every.index(names[0]) + 1
    return _span(names) if between == len(names) else f"{len(names)} of {_span(names)}"
