"""The figures of claims that were fixed before runs of their own, beside those of the studies' records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from statesize.lab.studies.engine.statistics import pearson, spearman
from statesize.truncation import CutDocument, TruncationResult
from tools.figures.bounds import run_title
from tools.figures.on_record import VERDICTS, estimate, read_json, table, verdict_counts


def recall_moment(document: Mapping[str, Any]) -> dict[str, str]:
    """By how many steps ESS rises before recall is solved."""
    return _claimed(document, "mixer", "lead in steps", "lead_", "+.1f")


CLAIMED = (("ess", 0.25), ("ess", 1.0), ("equal", 1.0))
"""The rules and multiples of ESS of the earlier claims, and as many numbers spread equally."""


def truncation(document: dict[str, Any]) -> dict[str, str]:
    """What published models lose when they are cut with hindsight."""
    results = [_result_of(row) for row in document["rows"]]
    worths = {
        f"{name}_worth": f"{result.worth.value:.2f}" for name, result in zip(("smollm2", "gemma"), results, strict=True)
    }
    lines = ["| model | numbers of each head | mean | KL lost | of context's worth |", "|---|---|---|---|---|"]
    for result in results:
        lines += [
            f"| {result.model.partition('.')[0]} | {run_title(one.rule, one.scale)} | {one.kept:.1f} | "
            f"{one.divergence_share:.1%} | {one.share:.1%} |"
            for one in result.rows
            if (one.rule, one.scale) in CLAIMED
        ]
    return worths | {"table": "\n".join(lines)}


def _result_of(row: Mapping[str, Any]) -> TruncationResult:
    """The result that a row was made of; attention cut in its middle has as many inputs as the ceiling."""
    documents: list[CutDocument] = []
    for one in row["measured"]:
        fields: dict[str, Any] = {"inputs": one["ceiling"], "stored": one["ceiling"]} | one
        documents.append(CutDocument.of(fields))
    return TruncationResult(row["model"], tuple(documents), {}, row["mixers"])


def delimiter_positions(document: Mapping[str, Any]) -> dict[str, str]:
    """Dips at delimiters of models with and without positions, means over seeds, of softmax attention and `gla`."""
    beyond = {look["name"]: look for look in document["looks"]} | document["others"]
    rows: list[tuple[str, ...]] = []
    for mixer in ("sa", "gla"):
        for positions in (False, True):
            own = [row for row in document["rows"] if (row["mixer"], row["positions"]) == (mixer, positions)]
            depths = [sum(row["depths"][metric] for row in own) / len(own) for metric in _METRICS]
            accuracy = _mean(own, "accuracy")
            word = "with" if positions else "without"
            shown = (f"{accuracy:.2f}", _shown(beyond[f"{mixer}_{word}_positions"], "+.2f"))
            rows.append((f"`{mixer}`", word, *shown, *(f"{depth:+.2f}" for depth in depths)))
    head = ("mixer", "positions", "accuracy", "beyond the controls", *_METRICS.values())
    claimed = _claimed(document, "figure", "exceeds the controls by", "", "+.2f")
    return claimed | {"models": str(len(document["rows"])), "depths": table(head, rows)}


_METRICS = {
    **{"tolerance": "τ = .3", "tolerance_0.01": ".01", "tolerance_0.1": ".1", "tolerance_0.6": ".6"},
    **{"relative": "relative", "entropy": "entropy-ESS", "norm": "norm"},
}


def attention_students(document: Mapping[str, Any]) -> dict[str, str]:
    """What the ESS of a teacher of attention tells of a student of linear attention."""
    others = document["others"]
    return _claimed(document, "figure", "rank correlation", "", ".2f") | {
        "error_at_equal_pairs": _shown(others["ESS and error at equal pairs"], ".2f"),
        "accuracy_at_equal_pairs": _shown(others["less ESS and accuracy at equal pairs"], ".2f"),
    }


def recall_mixers(document: Mapping[str, Any]) -> dict[str, str]:
    """Whether mixers whose models dip deeper recall better."""
    rows = document["rows"]
    mixers = dict.fromkeys(row["mixer"] for row in rows)
    words = [name for name in document["others"] if name.startswith("depth_") and name[6:] not in mixers]
    ess, log_p, accuracy = (
        np.array([_mean(rows, name, mixer=mixer) for mixer in mixers]) for name in ("ess", "log_p", "accuracy")
    )
    learned, convolved = accuracy > _LEARNED, np.array([mixer not in _NO_CONVOLUTION for mixer in mixers], np.float64)
    others = [(name.replace("_", " "), _shown(document["others"][name], ".2f")) for name in words]
    return _claimed(document, "figure", "correlation", "", ".2f") | {
        "others": table(("correlation of", "with its interval"), others),
        "models": str(len(rows)),
        "counted": str(len(mixers)),
        "ess": _shown(document["others"]["ess_recall"], ".2f"),
        "learned": str(learned.sum()),
        "ess_learned": f"{spearman(ess[learned], log_p[learned]):z.2f}",
        "convolution": f"{pearson(convolved, log_p):.2f}",
        "minutes": f"{sum(row['seconds'] for row in rows) / 60:.0f}",
    }


_LEARNED = 0.7
"""Mixers on record reach 0.78 at least, or 0.66 at most."""
_NO_CONVOLUTION = ("sliding", "linear-transformer", "hedgehog")


def asked() -> dict[str, str]:
    """One row a claim, in short; the page that it links to has its figures."""
    verdicts = {name: VERDICTS[read_json(name)["holds"]] for name in _ASKED}
    rows = [(f"[{claim}]({page})", verdicts[name]) for name, (page, claim) in _ASKED.items()]
    return {"table": table(("the claim", "verdict"), rows), "verdicts": verdict_counts(verdicts.values())}


_ASKED = {
    "recall_moment": (
        "appendix/series.md#does-ess-rise-before-a-task-is-solved",
        "ESS rises before held-out accuracy does",
    ),
    "delimiter_positions": (
        "appendix/delimiters.md#do-positions-make-attention-forget",
        "With learned positions, softmax attention dips at delimiters, and more than without",
    ),
    "recall_mixers": (
        "appendix/delimiters.md#does-a-deeper-dip-go-with-better-recall",
        "Mixers that dip deeper recall better",
    ),
    "attention_students": (
        "appendix/design.md#from-softmax-to-linear-attention",
        "The ESS of a softmax teacher tells the error and the accuracy of a linear student",
    ),
    "longer_regularisation": (
        "appendix/training-terms.md#does-it-only-start-sooner",
        "The term for decays near 1 raises accuracy after 2,400 steps too",
    ),
    "teachers": (
        "appendix/design.md#the-study",
        "At equally many pairs, the ESS of a teacher tells its student's error and lost accuracy",
    ),
    "open_gates": (
        "recall.md#saturation-and-collapse",
        "With open gates and n = 16, where both learned, `la` uses more of its state than `gla`",
    ),
    "copying": (
        "recall.md#is-it-so-in-other-tasks",
        "Accuracy goes with entropy-ESS/kv in compression and selective copying",
    ),
}
"""Claims with a record of their own: where they are told, and in short what they say."""


def teachers(document: Mapping[str, Any]) -> dict[str, str]:
    """What the ESS of a teacher tells among teachers of equally many pairs, and what is left given its accuracy."""
    shown = {name: _shown(one, ".2f") for name, one in _everything(document).items()}
    names = {"error": "error", "lost": "accuracy lost"}
    given = {f"{name}_given": f"{names[name]}, given the teacher's accuracy" for name in ("error", "lost")}
    return {key: shown[name] for key, name in (names | given).items()} | _run(document)


def open_gates(document: Mapping[str, Any]) -> dict[str, str]:
    """By how much linear attention uses more of its state where both models learned."""
    found = _everything(document)
    names = {"difference": "la less gla", "before": "before training", "all": "over all pairs of models"}
    return {
        **{key: _shown(found[name], ".2f") for key, name in names.items()},
        "matched": str(found["la less gla"]["units"]),
        "pairs": str(found["over all pairs of models"]["units"]),
        **_matched(document["rows"]),
        **_run(document),
    }


def _matched(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each mixer uses where both of a pair learned about as well."""
    found = {(row["mixer"], row["seed"]): row for row in rows}
    pairs = [(row, found["gla", seed]) for (mixer, seed), row in found.items() if mixer == "la"]
    learned = [
        pair
        for pair in pairs
        if min(row["accuracy"] for row in pair) > 0.8 and abs(pair[0]["accuracy"] - pair[1]["accuracy"]) <= 0.1
    ]
    return {
        name: f"{fmean(pair[index]['utilisation'] for pair in learned):.2f}" for index, name in enumerate(("la", "gla"))
    }


def copying(document: Mapping[str, Any]) -> dict[str, str]:
    """How accuracy goes with ESS and other measures, among runs that differ in their seed."""
    found, columns = _everything(document), ("", "relative_0.01", "at initialisation", "norm")
    rows = [
        (task, *(_shown(found[f"{task} {column}".strip()], ".2f") for column in columns))
        for task in ("compression", "selective copying")
    ]
    head = ("task", "entropy-ESS", "`relative_0.01`", "entropy-ESS at initialisation", "norm")
    return {"table": table(head, rows), **_run(document)}


def _everything(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {look["name"]: look for look in document["looks"]} | document["others"]


def _run(document: Mapping[str, Any]) -> dict[str, str]:
    rows = document["rows"]
    minutes = f"{sum(row['seconds'] for row in rows) / 60:.0f}"
    return {"verdict": VERDICTS[document["holds"]], "runs": str(len(rows)), "minutes": minutes}


def longer_regularisation(document: Mapping[str, Any]) -> dict[str, str]:
    """What the regulariser gains over longer training."""
    (gain,) = document["looks"]
    return _claimed(document, "figure", "gain in accuracy", "", "+.2f") | {
        "gain": _shown(gain, ".2f"),
        "wla": _shown(document["others"]["wla_0.3"], ".2f"),
        "share": _shown(document["others"][f"{gain['name']}_share"], "+.2f"),
        "without": f"{_mean(document['rows'], 'accuracy', mixer='gla', weight=0):.2f}",
    }


def _mean(rows: list[dict[str, Any]], name: str, **of: object) -> float:
    """The rows that hold these values."""
    return fmean(row[name] for row in rows if of.items() <= row.items())


def _claimed(document: Mapping[str, Any], what: str, effect: str, prefix: str, form: str) -> dict[str, str]:
    """The claim, its pilot and verdict, and a table of its figures."""
    looks = [
        (
            look["name"].removeprefix(prefix).replace("_", " "),
            _shown(look, form),
            str(look["units"]),
            f"{look['p']:.2g}",
        )
        for look in document["looks"]
    ]
    return {
        "claim": document["claim"]["statement"],
        "pilot": document["claim"]["pilot"],
        "verdict": VERDICTS[document["holds"]],
        "table": table((what, effect, f"units ({document['claim']['unit']})", "adjusted p"), looks),
    }


def _shown(one: Mapping[str, Any], form: str) -> str:
    return "–" if one["interval"][0] is None else estimate(one["value"], one["interval"], form)
