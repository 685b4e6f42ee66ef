"""What a page says in words: one sentence, the numbers behind it, and one line a model, for each metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from statesize.drawing.chart import METRICS
from statesize.results.findings.headline import headline, model_line
from statesize.results.protocol import Profiled
from statesize.results.summary import ess_values

PAGE_METRICS = ("entropy", "relative_count")
"""What a page can show; an absolute tolerance says little without the operator's scale and stays in the profile."""


def metric_titles(profiles: Sequence[Profiled]) -> dict[str, str]:
    """The metrics that were measured of any layer, with what a page calls them; entropy first."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    ratios = profiles[0].attributes["relative_tolerances"]
    named = f", singular values above {100 * ratios[0]:g} % of the largest" if ratios else ""
    known = any(np.isfinite(ess_values(node, "relative_count")).any() for node in nodes)
    return {
        metric: METRICS[metric] + (named if metric != "entropy" else "")
        for metric in PAGE_METRICS
        if metric == "entropy" or known
    }


def words(profiles: Sequence[Profiled], metrics: Sequence[str]) -> dict[str, str]:
    """The parts `headline`, `lead` and `lines` of a page, as HTML; the page's script shows those of one metric."""
    said = {metric: headline(profiles, metric) for metric in metrics}
    return {
        "headline": _by_metric(metrics, lambda metric: escape(said[metric].sentence)),
        "lead": _by_metric(metrics, lambda metric: escape(said[metric].detail)),
        "lines": _by_metric(
            metrics, lambda metric: "<br>".join(escape(model_line(profile, metric)) for profile in profiles)
        ),
    }


def _by_metric(metrics: Sequence[str], text: Callable[[str], str]) -> str:
    return "".join(
        f'<span data-metric="{metric}"{"" if metric == metrics[0] else " hidden"}>{text(metric)}</span>'
        for metric in metrics
    )
