"""The verdicts on claims of our own, which were fixed before runs with records of their own."""

from __future__ import annotations

from tools.figures.on_record import VERDICTS, read_json, table, verdict_counts


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
