"""The study of delimiters: does ESS dip where one document ends and another begins?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import altair as alt
import numpy as np
from torch import nn

from statesize.lab.studies.delimiters.dips import CLAIM_METRIC, ModelDips
from statesize.lab.studies.delimiters.measuring import METRICS, OTHER_TOLERANCES
from statesize.lab.studies.delimiters.modulation import ALL, Dip
from statesize.lab.studies.delimiters.sequences import CONDITIONS, CONTROLS, MISPLACED, OBSERVED
from statesize.lab.studies.delimiters.subjects import Subject
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import chart_data, palette, percent, rounded
from statesize.lab.studies.page.conclusion import Conclusion, Figure, Findings
from statesize.lab.studies.page.final import grouped
from statesize.lab.studies.statistics import Evidence, of_mean
from statesize.lab.studies.study import TextOptions
from statesize.lab.studies.verdicts import LEVEL, Look, holm

CLAIM = (
    "Where a delimiter stands, the effective state-size of models of at least one mixer dips by more than in every "
    "control without it."
)
LEAST_MODELS = 5
"""Trained models, such as seeds, of a mixer: with fewer there is no verdict on it."""

CAVEATS = (
    "The claim is on #{σ > τ} with a τ that is fixed around each delimiter. Entropy-ESS and relative tolerances are "
    "blind to an erasure that scales all of H_i alike, and may rise where the norm falls: all are given, with ‖H_i‖.",
    "All H_i are of one shape (past w, future h), so that no dip is the ceiling of a short past or future; memory "
    "that reaches further than w is not seen.",
    "A dip at delimiters inside documents ('misplaced') tells that the token alone causes it, whether a document ends "
    "or not.",
    "Intervals resample delimiters of one text and one set of weights; models trained from other seeds vary more. The "
    "verdict is over models of one mixer, of which it needs five.",
)


def delimiters(models: Sequence[ModelDips], delimiter: str) -> Conclusion:
    """The conclusion from at least one model."""
    findings = Findings({"models": float(len(models)), "events": float(models[0].dip(OBSERVED).events)})
    for model in models:
        findings.figures |= _figures(model)
    ranked = sorted(models, key=lambda model: -model.dip(OBSERVED).depth)
    findings.statements.append(f"The delimiter is {delimiter!r}; past and future are {_windows(models)} tokens.")
    holds = _verdict(models, findings)
    findings.statements += [f"{place}. {_statement(model)}" for place, model in enumerate(ranked, 1)]
    if len(models) > 1:
        findings.statements.append(_order(ranked))
    return Conclusion("delimiters", CLAIM, holds, findings.figures, tuple(findings.statements), CAVEATS)


def _verdict(models: Sequence[ModelDips], findings: Findings) -> bool | None:
    """Whether some mixer dips beyond its controls over models, whose weights were drawn independently."""
    by_mixer: dict[str, Evidence] = {}
    for kinds, members in grouped(models, lambda model: model.kinds).items():
        by_mixer[f"beyond_controls_{'_'.join(sorted(kinds))}"] = of_mean(np.array([model.beyond for model in members]))
    adjusted = holm([evidence.p_above(0) for evidence in by_mixer.values()])
    for (name, evidence), p in zip(by_mixer.items(), adjusted, strict=True):
        findings.add_look(
            Look(name, 0, evidence.interval(len(by_mixer)), evidence.units, p), "trained model of one mixer"
        )
    fewest, most = (choose(evidence.units for evidence in by_mixer.values()) for choose in (min, max))
    if most < LEAST_MODELS:
        findings.statements.append(f"{most} models of a mixer are too few: {LEAST_MODELS} are needed.")
    enough = [p for evidence, p in zip(by_mixer.values(), adjusted, strict=True) if evidence.units >= LEAST_MODELS]
    if min(enough, default=1.0) <= LEVEL:
        return True
    # All mixers must be refuted, so none of these looks needs a correction.
    refuted = fewest >= LEAST_MODELS and max(evidence.p_below(0) for evidence in by_mixer.values()) <= LEVEL
    return False if refuted else None


def measure_subject(subject: Subject, options: TextOptions, dips: Callable[[nn.Module | None], ModelDips]) -> ModelDips:
    """Dips of one model at delimiters and at all controls."""
    del subject, options
    return dips(None)


def dip_rows(models: Sequence[ModelDips]) -> list[Row]:
    """All depths, a row for each model, condition, metric, layer and head."""
    return [{"model": model.model, **vars(dip)} for model in models for dip in model.dips]


def delimiters_tables(models: Sequence[ModelDips]) -> dict[str, list[Row]]:
    """Depths, and curves with a row for each model, condition, metric and offset, by name of the file."""
    curves = [{"model": model.model, **vars(point)} for model in models for point in model.curve]
    return {"table.parquet": dip_rows(models), "curves.parquet": curves}


def _figures(model: ModelDips) -> dict[str, Figure]:
    figures: dict[str, Figure] = {f"{model.model}_beyond_controls": float(model.beyond_controls)}
    for metric in METRICS:
        dip = model.dip(OBSERVED, metric)
        figures |= {f"{model.model}_{metric}_depth": dip.depth, f"{model.model}_{metric}_interval": (dip.low, dip.high)}
    for control in (*CONTROLS, MISPLACED):
        dip = model.dip(control)
        prefix = "" if control == MISPLACED else "control_"
        figures[f"{prefix}{model.model}_{control}_interval"] = (dip.low, dip.high)
    return figures


def _statement(model: ModelDips) -> str:
    dip, norm, entropy = (model.dip(OBSERVED, metric) for metric in (CLAIM_METRIC, "norm", "entropy"))
    others = [f"{model.dip(OBSERVED, metric).depth:.1%} ({metric})" for metric in OTHER_TOLERANCES]
    layers = [f"{layer} {depth:.0%}" for layer, depth in model.layer_depths.items()]
    deepest = max((model.dip(control) for control in CONTROLS), key=lambda control: control.high)
    where = "beyond" if model.beyond_controls else "not beyond"
    inside = model.dip(MISPLACED)
    return (
        f"{model.model}: ESS dips by {_shown(dip)} at {dip.events} delimiters, {where} all controls (the largest, "
        f"{deepest.condition}: {_shown(deepest)}); at delimiters inside documents by {_shown(inside)}. The norm dips "
        f"by {_shown(norm)}, entropy-ESS by {_shown(entropy)}, ESS at other τ by {', '.join(others)}. "
        f"By layer: {', '.join(layers)}."
    )


def _order(ranked: Sequence[ModelDips]) -> str:
    order = [ranked[0].model]
    for before, after in pairwise(ranked):
        apart = before.dip(OBSERVED).low > after.dip(OBSERVED).high
        order.append(f"{'>' if apart else '≥'} {after.model}")
    return f"Order of depth: {' '.join(order)}, where > says that the intervals are apart."


def _shown(dip: Dip) -> str:
    return f"{dip.depth:.1%} [{dip.low:.1%}, {dip.high:.1%}]"


def _windows(models: Sequence[ModelDips]) -> str:
    sizes = sorted({(model.windows.past, model.windows.future) for model in models})
    return " and ".join(str(past) if past == future else f"{past} and {future}" for past, future in sizes)


_WIDTH, _HEIGHT = 360, 220
_TITLES = {"tolerance": "ESS, fixed τ", "entropy": "Entropy-ESS", "relative": "ESS, relative τ", "norm": "‖H‖"}


def delimiters_charts(models: Sequence[ModelDips]) -> alt.VConcatChart:
    """ESS around the delimiter with its controls, four charts a model, and the depths of layers and heads."""
    curves = [
        alt.concat(*(_curves(model, metric) for metric in _TITLES), columns=2).resolve_scale(y="independent")
        for model in models
    ]
    return alt.vconcat(*curves, _depths(models), _heads(models)).resolve_scale(color="independent")


def _curves(model: ModelDips, metric: str) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(vars(point) for point in model.curve if point.metric == metric)
    base = alt.Chart(data, title=f"{model.model}: {_TITLES[metric]}").encode(
        x=alt.X("offset:Q", title="Tokens from the cut after the delimiter"),
        color=palette("condition", "Condition").sort(list(CONDITIONS)),
    )
    y = alt.Y("low:Q", title="Share of its mean around", axis=percent(), scale=alt.Scale(zero=False))
    bands = base.mark_area(opacity=0.15).encode(y=y, y2="high:Q")
    lines = base.mark_line(point=alt.OverlayMarkDef(size=16)).encode(
        y="share:Q", tooltip=["condition:N", "offset:Q", rounded("share", ".1%")]
    )
    return alt.layer(bands, lines).properties(width=_WIDTH, height=_HEIGHT)


def _depths(models: Sequence[ModelDips]) -> alt.LayerChart | alt.FacetChart:
    data = chart_data(row for row in dip_rows(models) if row["metric"] == CLAIM_METRIC and row["layer"] == ALL)
    base = alt.Chart(data, title="Depth of the dip, with intervals of 95 %").encode(
        y=alt.Y("condition:N", title=None, sort=list(CONDITIONS)),
        color=palette("model", "Model"),
        yOffset="model:N",
        tooltip=["model:N", "condition:N", *(rounded(name, ".1%") for name in ("depth", "low", "high"))],
    )
    rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="Depth (fixed τ)", axis=percent()), x2="high:Q")
    depths = base.mark_point(filled=True).encode(x="depth:Q")
    return alt.layer(rules, depths).properties(width=2 * _WIDTH, height=_HEIGHT)


def _heads(models: Sequence[ModelDips]) -> alt.Chart | alt.FacetChart:
    shown = (CLAIM_METRIC, OBSERVED)
    data = chart_data(
        row for row in dip_rows(models) if (row["metric"], row["condition"]) == shown and row["head"] != ALL
    )
    return (
        alt.Chart(data, title="Depth of each head at the delimiter")
        .mark_rect()
        .encode(
            x=alt.X("head:O", title="Head or channel"),
            y=alt.Y("layer:N", title=None),
            row=alt.Row("model:N", title=None),
            color=alt.Color("depth:Q", title="Depth", scale=alt.Scale(scheme="blueorange", domainMid=0)),
            tooltip=["model:N", "layer:N", "head:O", rounded("depth", ".1%")],
        )
        .properties(width=_WIDTH)
    )
