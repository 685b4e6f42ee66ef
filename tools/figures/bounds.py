"""The figures of both bounds of the memory: what ESS suffices for with hindsight, and what is needed without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bounds import CLAIMS, TOKENS, result_of
from benchmarks.bounds import bounds as bounds_of
from benchmarks.recorded import Row
from benchmarks.truncation import holds, interval
from benchmarks.truncation import table as runs_table
from statesize.measurement.statistics import Interval
from statesize.truncation.result import TruncationResult
from tools.figures.on_record import VERDICTS, table

_MODELS = {
    "SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M",
    "gemma-3-270m-q4_k_m": "Gemma 3 270M",
    "gated-deltanet": "`gated-deltanet`",
}
_CLAIMS = {
    "with hindsight ESS suffices": "at ESS, the choice with hindsight loses at most 1 %",
    "without it ESS does not": "at ESS, the best choice without it loses more than 5 %",
    "without it 1 % takes a quarter of what is stored": "a loss of 1 % takes it more than 25 % of what is stored",
}
_BETWEEN: dict[str, Mapping[str, Any]] = {
    "the second as it stood for three hours: more than 1 %": {"bound": "causal", "more than": 0.01},
    "the third so: more than 6.25 % of what all heads can keep": {"bound": "share", "more than": 0.0625},
}
"""What the claims said for a time before the runs."""


def bounds(document: Mapping[str, Any]) -> dict[str, str]:
    """Both bounds of each model, verdicts on the claims, and how they go with length."""
    rows: list[Row] = document["rows"]
    whole = {name: [row for row in rows if (row["file"], row["tokens"]) == (name, TOKENS)] for name in _MODELS}
    whole = {name: own for name, own in whole.items() if own}
    results = {name: result_of(own) for name, own in whole.items()}
    smollm2, recurrence = (results[name] for name in (next(iter(_MODELS)), "gated-deltanet"))
    worths = sorted(one.runs[0].loss - one.loss for one in recurrence.documents)
    measured = [
        {**own[0], "model": _MODELS[name], "measured": [row["measured"] for row in own]} for name, own in whole.items()
    ]
    return {
        **{name: _told(one, _FORMS[name]) for name, one in bounds_of(smollm2).items() if name in _FORMS},
        "equal": _equal(smollm2),
        "equal_recurrence": _equal(recurrence),
        "ess": f"{smollm2.entropy.value:.1f}",
        "documents": str(smollm2.count),
        "least_worth": f"{worths[0]:.3f}".replace("-", "−"),
        "most_worth": f"{worths[-1]:.2f}",
        "models": table(("model", *_HEAD), ((_MODELS[name], *_cells(one)) for name, one in results.items())),
        "claims": _claims(results),
        "lengths": _lengths(rows),
        "table": runs_table({"rows": measured}),
        "minutes": f"{sum(row['seconds'] for row in rows) / 60:.0f}",
    }


_FORMS = {"worth": ".2f", "hindsight": ".1%", "causal": ".1%", "multiple": ".1f", "stored": ".0%"}
_HEAD = (
    *("context's worth (nats)", "ESS", "KL lost with hindsight", "without it"),
    *("1 % takes so many times ESS", "of what is stored"),
)


def _cells(result: TruncationResult) -> tuple[str, ...]:
    """Worth, ESS and both bounds, of which nothing is told where the context may be worth nothing."""
    found = bounds_of(result)
    worth, *others = (_told(found[name], form) for name, form in _FORMS.items())
    return worth, f"{result.entropy.value:.1f}", *(others if result.context_matters else "–" * len(others))


def _equal(result: TruncationResult) -> str:
    """What is lost where all heads keep equally many numbers, as many as ESS together."""
    (equal,) = (row for row in result.rows if row.rule == "equal past rows")
    return _told(equal.divergence_share, ".1%")


def _claims(results: Mapping[str, TruncationResult]) -> str:
    """What each claim gives in each model."""
    claims: dict[str, Mapping[str, Any]] = {**{words: CLAIMS[name] for name, words in _CLAIMS.items()}, **_BETWEEN}
    found = [bounds_of(result) for result in results.values()]

    def verdict(claim: Mapping[str, Any], share: Interval) -> str:
        return f"{VERDICTS[holds(share.ends, claim)]}: {_told(share, '.1%')}"

    cells = ((words, *(verdict(claim, one[claim["bound"]]) for one in found)) for words, claim in claims.items())
    return table(("claim", *(_MODELS[name] for name in results)), cells)


def _lengths(rows: Sequence[Row]) -> str:
    """Both bounds at each length, over as many texts at all."""
    cells: list[tuple[str, ...]] = []
    for name, words in _MODELS.items():
        lengths = sorted({row["tokens"] for row in rows if row["file"] == name})
        own = {tokens: [row for row in rows if (row["file"], row["tokens"]) == (name, tokens)] for tokens in lengths}
        least = min(map(len, own.values()), default=0)
        if len(own) > 1:
            cells += [
                (words, f"{tokens:,}", str(least), *_cells(result_of(some[:least]))) for tokens, some in own.items()
            ]
    return table(("model", "tokens", "documents", *_HEAD), cells)


def _told(one: Interval, form: str) -> str:
    return interval(one.to_dict(), form)
