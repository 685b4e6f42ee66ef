"""The study of delimiters: does ESS dip where one document ends and another begins?

Parnichkun et al., "Quantifying Memory Utilization with Effective State-Size", ICML 2025, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from statesize.studies.delimiters.dips import CLAIM_METRIC, ModelDips
from statesize.studies.delimiters.measuring import METRICS
from statesize.studies.delimiters.modulation import Dip
from statesize.studies.delimiters.sequences import CONTROLS, MISPLACED, OBSERVED
from statesize.studies.grid.run import Row
from statesize.studies.page.conclusion import Conclusion, Figure, Findings

CLAIM = (
    "Where a delimiter stands, the effective state-size of at least one model dips by more than in every control "
    "without it."
)
LINEAR_CLAIM = (
    "Where a delimiter stands, the effective state-size of at least one model with softmax attention or gates dips by "
    "more than in every control without it, and that of linear attention dips by less."
)
LINEAR, RESETTING = frozenset({"la"}), frozenset({"sa", "gla", "attention"})

CAVEATS = (
    "The claim is on #{σ > τ} with a τ that is fixed around each delimiter. Entropy-ESS and relative tolerances are "
    "blind to an erasure that scales all of H_i alike, and may rise where the norm falls: all are given, with ‖H_i‖.",
    "All H_i are of one shape (past w, future h), so that no dip is the ceiling of a short past or future; memory "
    "that reaches further than w is not seen.",
    "A dip at delimiters inside documents ('misplaced') tells that the token alone causes it, whether a document ends "
    "or not.",
    "Intervals resample delimiters of one text and one set of weights; models trained from other seeds vary more.",
)


def ranking(models: Sequence[ModelDips]) -> list[ModelDips]:
    """The models, the deepest dip first."""
    return sorted(models, key=lambda model: -model.dip(OBSERVED).depth)


def delimiters(models: Sequence[ModelDips], delimiter: str) -> Conclusion:
    """The claim and whether it holds, the ranking of models, of which there is at least one, and the figures."""
    linear = [model for model in models if model.kinds <= LINEAR]
    resetting = [model for model in models if model.kinds & RESETTING]
    compared = bool(linear and resetting)
    able = [model for model in (resetting if compared else models) if model.beyond_controls]
    least = max((model.dip(OBSERVED).high for model in linear), default=float("-inf"))
    holds = True if any(model.dip(OBSERVED).low > least for model in able) or (able and not compared) else None
    if all(model.below_a_control for model in (resetting if compared else models)):
        holds = False
    findings = Findings({"models": float(len(models)), "events": float(models[0].dip(OBSERVED).events)})
    for model in models:
        findings.figures |= _figures(model)
    ranked = ranking(models)
    findings.statements.append(f"The delimiter is {delimiter!r}; past and future are {_windows(models)} tokens.")
    findings.statements += [f"{place}. {_statement(model)}" for place, model in enumerate(ranked, 1)]
    if len(models) > 1:
        findings.statements.append(_order(ranked))
    claim, said = LINEAR_CLAIM if compared else CLAIM, tuple(findings.statements)
    return Conclusion("delimiters", claim, holds, findings.figures, said, CAVEATS)


def dip_rows(models: Sequence[ModelDips]) -> list[Row]:
    """All depths as rows of a table, one for each model, condition, metric, layer and head."""
    return [{"model": model.model, **vars(dip)} for model in models for dip in model.dips]


def curve_rows(models: Sequence[ModelDips]) -> list[Row]:
    """All curves as rows of a table, one for each model, condition, metric and offset."""
    return [{"model": model.model, **vars(point)} for model in models for point in model.curve]


def _figures(model: ModelDips) -> dict[str, Figure]:
    found: dict[str, Figure] = {f"{model.model}_beyond_controls": float(model.beyond_controls)}
    for metric in METRICS:
        dip = model.dip(OBSERVED, metric)
        found |= {f"{model.model}_{metric}_depth": dip.depth, f"{model.model}_{metric}_interval": (dip.low, dip.high)}
    for control in (*CONTROLS, MISPLACED):
        dip = model.dip(control)
        prefix = "" if control == MISPLACED else "control_"
        found[f"{prefix}{model.model}_{control}_interval"] = (dip.low, dip.high)
    return found


def _statement(model: ModelDips) -> str:
    dip, norm, entropy = (model.dip(OBSERVED, metric) for metric in (CLAIM_METRIC, "norm", "entropy"))
    layers = [f"{layer} {depth:.0%}" for layer, depth in model.layer_depths.items()]
    deepest = max((model.dip(control) for control in CONTROLS), key=lambda control: control.high)
    where = "beyond" if model.beyond_controls else "not beyond"
    inside = model.dip(MISPLACED)
    return (
        f"{model.model}: ESS dips by {_shown(dip)} at {dip.events} delimiters, {where} all controls (the largest, "
        f"{deepest.condition}: {_shown(deepest)}); at delimiters inside documents by {_shown(inside)}. The norm dips "
        f"by {_shown(norm)}, entropy-ESS by {_shown(entropy)}. By layer: {', '.join(layers)}."
    )


def _order(ranked: Sequence[ModelDips]) -> str:
    told = [ranked[0].model]
    for before, after in pairwise(ranked):
        apart = before.dip(OBSERVED).low > after.dip(OBSERVED).high
        told.append(f"{'>' if apart else '≥'} {after.model}")
    return f"Order of depth: {' '.join(told)}, where > says that the intervals are apart."


def _shown(dip: Dip) -> str:
    return f"{dip.depth:.1%} [{dip.low:.1%}, {dip.high:.1%}]"


def _windows(models: Sequence[ModelDips]) -> str:
    sizes = sorted({(model.windows.past, model.windows.future) for model in models})
    return " and ".join(str(past) if past == future else f"{past} and {future}" for past, future in sizes)
