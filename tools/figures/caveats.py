"""What speaks against each finding: figures of the same records that a reader should have beside the effect."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from statesize.lab.studies.distillation import students_of
from statesize.lab.studies.engine.statistics import correlation_evidence, numbers, of_mean, ranked
from statesize.lab.studies.engine.table import numbered
from statesize.lab.studies.texts.dips import ALL, CLAIM_METRIC
from statesize.lab.studies.texts.recall import CLAIM
from statesize.lab.studies.texts.sequences import MISPLACED
from tools.figures.on_record import figure, read_record, rows_of, value
from tools.figures.seeds import few_pairs

Figures: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Sequence[dict[str, Any]]

_ESS = "relative_0.01"
_CELL = ("mixer", "kv", "length", "key_size")


def caveats() -> dict[str, str]:
    """A sentence or two per study."""
    of_runs, of_figures = (
        (correlation, regimes, initialisation, distillation, delimiters),
        (regularisation, hybrids, recall),
    )
    said = {part.__name__: part(read_record(part.__name__)["figures"], rows_of(part.__name__)) for part in of_runs}
    return said | {part.__name__: part(read_record(part.__name__)["figures"]) for part in of_figures}


def correlation(figures: Figures, rows: Rows) -> str:
    """Few pairs carry the correlation, and the lead over TSS depends on the scale."""
    agreeing, pairs = recalling(rows)
    off_plateau = [figures[f"mqar_off_plateau_spearman_{name}"] for name in ("ess", "tss")]
    several, carried, without = few_pairs()
    return (
        f"Ten of the {several} pairs of seeds carry {carried:.0%} of the variance of accuracy; without them r is "
        f"{without:.2f}. In {agreeing} of the {pairs} that differ in both, the run with more ESS has the higher "
        f"accuracy. Among runs that learned more than to guess, ESS/kv has no lead over TSS/kv by ranks "
        f"({off_plateau[0]:.2f} against {off_plateau[1]:.2f})."
    )


def recalling(rows: Rows) -> tuple[int, int]:
    """`concordant` of the runs of MQAR."""
    return concordant([row for row in rows if row["final"] and row["task"] == "mqar"])


def concordant(rows: Rows) -> tuple[int, int]:
    """In how many pairs of runs of unequal seed alone ESS and accuracy agree, and in how many neither ties."""
    cells: defaultdict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[tuple(row[name] for name in _CELL)].append(row)
    products = [(a[_ESS] - b[_ESS]) * (a["accuracy"] - b["accuracy"]) for a, b in cells.values()]
    return sum(product > 0 for product in products), sum(product != 0 for product in products)


def regimes(figures: Figures, rows: Rows) -> str:
    """Mixers that learned stand beside mixers that did not; pairs that both learned differ by less."""
    final = [row for row in rows if row["final"]]
    gated = max(row["accuracy"] for row in final if row["mixer"] != "la")
    failed = [row for row in final if row["mixer"] == "la" and row["accuracy"] < _LEARNED]
    (size,) = {row["key_size"] for row in failed}

    def used(mixer: str) -> str:
        of = failed if mixer == "la" else [one for one in final if (one["mixer"], one["key_size"]) == (mixer, size)]
        return f"{fmean(one[f'utilisation_{_ESS}'] for one in of):.2f}"

    return (
        f"No run of `gla` or `wla` passes an accuracy of {gated:.3f}: learned is compared with not learned. The "
        f"{len(failed)} runs of `la` that did not learn either (n = {size}) use {used('la')}, `wla` there "
        f"{used('wla')}, `gla` {used('gla')}. Before training `la` uses "
        f"{figure(figures, 'control_initial_la_less_gla')} more than `gla`. Where gates start open and both learned "
        f"(n = 16), `la` uses {value('open_gates.looks.0|.2f')} more "
        "([tested apart](recall.md#saturation-and-collapse))."
    )


# Runs of `la` on record end below 0.13 or above 0.7.
_LEARNED = 0.2


def regularisation(figures: Figures) -> str:
    """One mixer, and one length of training."""
    before, after = figures["gla_lambda_0_accuracy"], figures["gla_lambda_0.3_accuracy"]
    longer = value("longer_regularisation.looks.0|.2f")
    return (
        f"Only `gla` was tested: accuracy rises from {before:.2f} to {after:.2f} in a short training. In a [longer "
        f"one](appendix/claims.md#beside-the-papers-claims) it gains {longer}, perhaps nothing."
    )


def initialisation(figures: Figures, rows: Rows) -> str:
    """The ratio and the gain are of different settings."""
    plain, normalised = "s6_0.01_to_0.1_L64", "s6_normalised_0.01_to_0.1_L64"
    ratios = [figures[f"{normalised}_n{n}_initial"] / figures[f"{plain}_n{n}_initial"] for n in (16, 4)]
    found: defaultdict[int, dict[bool, float]] = defaultdict(dict)
    for row in rows:
        model = json.loads(row["settings"])["model"]
        if row["final"] and row["accuracy"] and (row["mixer"], row["key_size"], row["length"]) == ("s6", 4, 64):
            found[row["seed"]][model["normalised"]] = row["accuracy"]
    gained = of_mean(numbers(pair[True] - pair[False] for pair in found.values()))
    return (
        "The ratio is of n = 64 and L = 192, the gain of n = 16 and L = 64, where the ratio is "
        f"{ratios[0]:.2f}. At n = 4 it is {ratios[1]:.2f}, and accuracy perhaps rises all the same, by "
        f"{gained.interval(_INITIALISATION_LOOKS):.2f} ({gained.units} seeds)."
    )


# Figures of the claim of `initialisation`, for which its intervals are corrected.
_INITIALISATION_LOOKS = 3


def distillation(figures: Figures, rows: Rows) -> str:
    """The accuracy that a student loses, instead of its error; and how few beginnings there are."""
    starts, students = len({row["seed"] for row in rows}), students_of(rows)
    ess, lost = (
        numbers(values)
        for values in ((one.ess for one in students), (one.teacher_accuracy - one.accuracy for one in students))
    )
    found = correlation_evidence(ess, lost, numbered([one.teacher for one in students]), prepare=ranked).interval()
    return (
        f"With the accuracy that the student loses, ρ is {found:.2f}. The teachers have "
        f"{starts} beginnings; 96 with beginnings of their own were "
        "[tested apart](appendix/claims.md#teachers-and-students)."
    )


def hybrids(figures: Figures) -> str:
    """The verdict of before, and what the first place tells."""
    by_placement, alone, beyond = (
        figure(figures, name)
        for name in (
            "early_attention_spearman_inside_by_placement",
            "control_place_spearman_inside",
            "early_attention_beyond_first_place",
        )
    )
    return (
        f"By placements, the unit when the claim was fixed, it holds ({by_placement}), but those with the same first "
        f"place are not independent. That place alone gives {alone}, and with it held fixed ESS gives {beyond}."
    )


def delimiters(figures: Figures, rows: Rows) -> str:
    """One tolerance of four, other measures, and the token where no document ends."""
    dips = {
        name: _mean(figures, f"_{name}_depth")
        for name in ("tolerance_0.01", "tolerance_0.1", "tolerance", "tolerance_0.6", "entropy", "norm")
    }
    taus = ", ".join(f"{dips[name]:.2f}" for name in list(dips)[:4])
    place = {"condition": MISPLACED, "metric": CLAIM_METRIC, "layer": ALL, "head": ALL, "offset": 0}
    inside = fmean(row["depth"] for row in rows if place.items() <= row.items())
    return (
        f"The past fades: the norm dips by {dips['norm']:.2f}, entropy-ESS by {dips['entropy']:.2f}. The dip claimed "
        f"is of τ = 0.3; at τ = 0.01, 0.1, 0.3 and 0.6 it is {taus}. Inside documents it is {inside:.2f}: the token "
        "causes it, not the end."
    )


def recall(figures: Figures) -> str:
    """Too few units to hold."""
    run = figures["claim_depth_recall_units"]
    return f"A verdict needs {CLAIM.least_units} mixers; {run:.0f} were run, so it could not hold."


def _mean(figures: Figures, end: str) -> float:
    return fmean(value for name, value in figures.items() if name.startswith("recall-") and name.endswith(end))
