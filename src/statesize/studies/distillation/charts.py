"""The charts of the study of distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import altair as alt

from statesize.drawing.chart import PALETTE, json_number
from statesize.studies.distillation.students import DistilledStudent, LoneModel, lone_models, students_of
from statesize.studies.grid.run import Row

_SIDE = 300


def distillation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Error against the teacher's ESS, against its prediction, and accuracy against bytes of state.

    Args:
        rows: All rows of the study.
        metric: Not used: this study has a metric of its own.

    Returns:
        The charts with their data.
    """
    del metric
    students, alone = students_of(rows), lone_models(rows)
    by_student = alt.Data(values=[_student(student) for student in students])
    by_layer = alt.Data(values=[layer for student in students for layer in _layers(student)])
    by_model = alt.Data(values=[*(_student(student) for student in students), *map(_lone, alone)])
    drawn = alt.vconcat(
        alt.hconcat(
            _points(by_student, "ess", "Entropy-ESS of the teacher", "error", "Relative error of T", "kind")
            .transform_filter("!datum.wanted")
            .properties(title="What students cannot learn"),
            _predicted(by_layer),
        ).resolve_scale(color="independent"),
        alt.hconcat(
            _points(by_model, "bytes", "Bytes of state of a sequence", "accuracy", "Accuracy", "kind").properties(
                title="Every model"
            ),
            _frontier(by_model),
        ).resolve_scale(color="independent"),
    )
    # Each chart has colours and a legend of its own.
    return drawn.resolve_scale(color="independent")


def _student(student: DistilledStudent) -> dict[str, object]:
    wanted = None if math.isnan(student.wanted) else student.wanted
    kind = f"distilled, n = {student.sizes[0]}" if wanted is None else f"recommended for {wanted:g}"
    shown = {"ess": student.ess, "error": student.error, "accuracy": student.accuracy, "bytes": student.bytes}
    return {
        "kind": kind,
        "way": "distilled" if wanted is None else "recommended",
        "group": kind,
        "wanted": wanted,
        "kv": student.kv,
        "sizes": ", ".join(map(str, student.sizes)),
        **{name: json_number(value) for name, value in shown.items()},
    }


def _layers(student: DistilledStudent) -> list[dict[str, object]]:
    parts = zip(student.errors, student.predicted, student.bounds, student.sizes, strict=True)
    return [
        {
            "layer": layer,
            "size": size,
            "error": json_number(error),
            "predicted": json_number(predicted),
            "bound": json_number(bound),
        }
        for layer, (error, predicted, bound, size) in enumerate(parts)
    ]


def _lone(model: LoneModel) -> dict[str, object]:
    shown = {"accuracy": json_number(model.accuracy), "bytes": json_number(model.bytes)}
    kind = f"alone, n = {model.key_size}"
    return {"kind": kind, "way": "alone", "group": kind, "wanted": None, "kv": model.kv, **shown}


def _points(data: alt.Data, x: str, x_title: str, y: str, y_title: str, color: str) -> alt.Chart:
    return (
        alt.Chart(data)
        .mark_point(filled=True, size=60, opacity=0.8)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
            y=alt.Y(f"{y}:Q", title=y_title),
            color=alt.Color(f"{color}:N", title="Model"),
            tooltip=[
                "kind:N",
                "kv:Q",
                "sizes:N",
                alt.Tooltip(f"{x}:Q", format=".3"),
                alt.Tooltip(f"{y}:Q", format=".3f"),
            ],
        )
        .properties(width=_SIDE, height=_SIDE)
    )


def _predicted(data: alt.Data) -> alt.LayerChart:
    base = alt.Chart(data)
    points = base.mark_point(filled=True, size=60, opacity=0.8).encode(
        x=alt.X("predicted:Q", title="Predicted: to stay below"),
        y=alt.Y("error:Q", title="Relative error of T, one layer"),
        color=alt.Color("layer:N", title="Layer", scale=alt.Scale(range=list(PALETTE))),
        tooltip=[
            "layer:N",
            "size:Q",
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("error", "predicted", "bound")),
        ],
    )
    line = base.mark_line(color="#888888").encode(x="predicted:Q", y="predicted:Q")
    drawn = alt.layer(line, points).properties(width=_SIDE, height=_SIDE, title="Students and their prediction")
    return cast("alt.LayerChart", drawn)


def _frontier(data: alt.Data) -> alt.Chart:
    return (
        alt.Chart(data)
        .transform_aggregate(bytes="mean(bytes)", accuracy="mean(accuracy)", models="count()", groupby=["way", "group"])
        .mark_line(point=True)
        .encode(
            x=alt.X("bytes:Q", title="Mean bytes of state of a sequence"),
            y=alt.Y("accuracy:Q", title="Mean accuracy"),
            color=alt.Color("way:N", title="Training", scale=alt.Scale(range=list(PALETTE))),
            order="bytes:Q",
            tooltip=[
                "group:N",
                "models:Q",
                alt.Tooltip("bytes:Q", format=",.0f"),
                alt.Tooltip("accuracy:Q", format=".2f"),
            ],
        )
        .properties(width=_SIDE, height=_SIDE, title="Performance and efficiency")
    )
