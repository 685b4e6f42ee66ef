"""The figures of both bounds of the memory: what ESS suffices for with hindsight, and what is needed without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bounds import CLAIMS, TOKENS, holds, result_of
from benchmarks.bounds import bounds as bounds_of
from benchmarks.recorded import Row
from statesize.measurement.statistics import Interval
from statesize.truncation import TruncationResult
from statesize.truncation.choices import RULES
from tools.figures.on_record import VERDICTS, table

_MODELS = {
    "SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M",
    "gemma-3-270m-q4_k_m": "Gemma 3 270M",
    "gated-deltanet": "`gated-deltanet`",
}
_CLAIMS = {
    "with hindsight ESS suffices": "at ESS with hindsight, predictions change by at most 1 %",
    "without it ESS does not": "at ESS without hindsight, they change by more than 5 %",
    "without it 1 % takes a quarter of what is stored": (
        "without hindsight, a change of 1 % takes more than 25 % of what is stored"
    ),
}
_RECORDED = {
    "equal": "as many, spread equally, with hindsight",
    "norm": "as many, spread by norm, with hindsight",
}
"""Rules that the records have, and sizes that are said in short."""


def bounds(document: Mapping[str, Any]) -> dict[str, str]:
    """Both bounds of each model, and verdicts on the claims."""
    rows: list[Row] = document["rows"]
    whole = {name: [row for row in rows if (row["file"], row["tokens"]) == (name, TOKENS)] for name in _MODELS}
    whole = {name: own for name, own in whole.items() if own}
    results = {name: result_of(own) for name, own in whole.items()}
    smollm2 = results[next(iter(_MODELS))]
    multiple = bounds_of(smollm2)["multiple"].value
    return {
        **{name: f"{one:{_FORMS[name]}}" for name, one in bounds_of(smollm2).items() if name in _FORMS},
        "half_hindsight": _changed(smollm2, "ess", 0.5),
        "tokens": _changed(smollm2, "past tokens"),
        "times": f"{multiple:.0f}",
        **_single_texts(whole[next(iter(_MODELS))]),
        "ess": f"{smollm2.entropy.value:.1f}",
        "needed": f"{round(multiple * smollm2.entropy.value, -1):.0f}",
        **_joint(smollm2),
        "joint_hindsight": _changed(smollm2, "joint ess"),
        "documents": str(smollm2.texts),
        "claims": _claims(results, {words: CLAIMS[name] for name, words in _CLAIMS.items()}),
        "table": _runs(results),
    }


_FORMS = {"hindsight": ".1%", "causal": ".1%", "multiple": ".1f", "stored": ".0%"}


def _single_texts(rows: Sequence[Row]) -> dict[str, str]:
    """How many times ESS single texts need for a change of 1 %."""
    multiples = sorted(bounds_of(result_of([row]))["multiple"].value for row in rows)
    return {
        "median_times": f"{median(multiples):.1f}",
        "range_times": f"{multiples[0]:.1f} to {multiples[-1]:.1f}",
    }


def _joint(result: TruncationResult) -> dict[str, str]:
    """Joint ESS of the heads that share a cache."""
    (joint,) = (f"{row.kept:.1f}" for row in result.rows if row.rule == "joint ess")
    return {
        "joint": joint,
        "joint_share": f"{float(joint) / result.mean(lambda one: one.inputs).value:.0%}",
    }


def _changed(result: TruncationResult, rule: str, scale: float = 1.0) -> str:
    """How far the predictions change where heads keep so many times their ESS by a rule."""
    (row,) = (row for row in result.rows if (row.rule, row.scale) == (rule, scale))
    return f"{row.divergence_share:.1%}"


_RUNS = (
    *((rule, 1.0) for rule in ("ess", "equal", "norm", "past rows")),
    ("past rows", 4.0),
    ("past tokens", 1.0),
)
"""The rules and multiples of ESS that the page shows."""


def other_texts(document: Mapping[str, Any]) -> dict[str, str]:
    """What heads of SmolLM2 need whose sizes come from the ESS of other texts, and of this text."""
    first = document["bounds"][0]
    numbers = (f"{first[name]['mean']:.1f}" for name in ("multiple_others", "multiple"))
    return {"smollm2": " instead of ".join(numbers), "tokens": str(first["tokens"])}


def _runs(results: Mapping[str, TruncationResult]) -> str:
    """How far the predictions of each model change by each rule."""
    known = [{(row.rule, row.scale): row.divergence_share for row in one.rows} for one in results.values()]
    titles = ((run, _RECORDED.get(run[0]) or RULES[run[0]].of_size(run[1])) for run in _RUNS)
    rows = ((title, *(f"{one[run]:.1%}" if run in one else "–" for one in known)) for run, title in titles)
    return table(("numbers of each head", *(_MODELS[name] for name in results)), rows)


def _claims(results: Mapping[str, TruncationResult], claims: Mapping[str, Mapping[str, Any]]) -> str:
    """What each claim gives in each model."""
    found = [bounds_of(result) for result in results.values()]

    def verdict(claim: Mapping[str, Any], share: Interval) -> str:
        return f"{VERDICTS[holds(share.ends, claim)]}: {share:.1%}"

    cells = ((words, *(verdict(claim, one[claim["bound"]]) for one in found)) for words, claim in claims.items())
    return table(("claim", *(_MODELS[name] for name in results)), cells)
