"""The section of a report that puts several models side by side."""

from __future__ import annotations

import math
from html import escape

from statesize.report.cells import figure_text, share_cell
from statesize.results.comparison import FIGURES, ComparedModel, Comparison

HEADINGS = {
    "state_bytes": "State bytes",
    "tss": "TSS per channel",
    "total_tss": "Total TSS",
    "average_entropy": "Average ESS, entropy",
    "average_relative_tolerance": "Average ESS, relative tolerance",
    "total_entropy": "Total ESS, entropy",
    "total_relative_tolerance": "Total ESS, relative tolerance",
    "norm": "Norm",
    "utilisation": "Utilisation",
    "modulation": "Modulation, entropy",
    "norm_modulation": "Modulation, norm",
    "recall_perplexity": "Recall perplexity",
}
_PERCENT = {"modulation", "norm_modulation"}
_ERRORS = {"average_entropy": "average_entropy_error", "total_entropy": "total_entropy_error"}


def comparison_section(comparison: Comparison) -> str:
    """The models side by side, what the columns are, and what makes them less comparable than they look.

    Args:
        comparison: The models.

    Returns:
        HTML; columns of which nothing is known are left out.
    """
    shown = [name for name in HEADINGS if any(math.isfinite(getattr(model, name)) for model in comparison.models)]
    head = "".join(f'<th scope="col" class="number">{escape(HEADINGS[name])}</th>' for name in shown)
    rows = "".join(
        f'<tr><th scope="row">{escape(model.model)}</th>{"".join(_cell(model, name) for name in shown)}</tr>'
        for model in comparison.models
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in comparison.notes)
    definitions = "".join(f"<dt>{escape(HEADINGS[name])}</dt><dd>{escape(FIGURES[name])}</dd>" for name in shown)
    return (
        '<section aria-labelledby="comparison-title"><h2 id="comparison-title">Side by side</h2>'
        "<p>Each row is a model: what its layers could carry together, and what they carry on this text.</p>"
        f'{notes}<div class="scroll" tabindex="0" role="region" aria-labelledby="comparison-title">'
        f'<table id="comparison"><thead><tr><th scope="col">Model</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div><details><summary>What the columns say</summary><dl>{definitions}</dl></details></section>"
    )


def _cell(model: ComparedModel, name: str) -> str:
    value = float(getattr(model, name))
    if not math.isfinite(value):
        return "<td class=number>–</td>"
    if name == "utilisation":
        return share_cell(value)
    if name in _PERCENT:
        return f"<td class=number>{value:.0%}</td>"
    error = float(getattr(model, _ERRORS[name])) if name in _ERRORS else 0.0
    half = f" ± {figure_text(error)}" if error and math.isfinite(error) else ""
    return f"<td class=number>{figure_text(value)}{half}</td>"
