"""The charts of the study of distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import altair as alt

from statesize.lab.studies.distillation.students import DistilledStudent, LoneModel, lone_models, students_of
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.page.charts import SIDE, chart_data, palette, points, rounded


def distillation_charts(rows: Sequence[Row], metric: str) -> alt.VConcatChart:
    """Error against the teacher's ESS and against its prediction, and accuracy against bytes; `metric` is not used."""
    del metric
    students, alone = students_of(rows), lone_models(rows)
    by_student = chart_data(map(_student, students))
    by_layer = chart_data(layer for student in students for layer in _layers(student))
    by_model = chart_data([*map(_student, students), *map(_lone, alone)])
    error = _points(
        by_student, "What students cannot learn", "ess", "Entropy-ESS of the teacher", "error", "Relative error of T"
    )
    bytes_of_state = _points(by_model, "Every model", "bytes", "Bytes of state of a sequence", "accuracy", "Accuracy")
    # Each chart has colours and a legend of its own.
    return alt.vconcat(
        alt.hconcat(error.transform_filter("!datum.wanted"), _predicted(by_layer)).resolve_scale(color="independent"),
        alt.hconcat(bytes_of_state, _frontier(by_model)).resolve_scale(color="independent"),
    ).resolve_scale(color="independent")


def _student(student: DistilledStudent) -> dict[str, object]:
    given = math.isnan(student.wanted)
    kind = f"distilled, n = {student.sizes[0]}" if given else f"recommended for {student.wanted:g}"
    return {
        "kind": kind,
        "way": "distilled" if given else "recommended",
        "wanted": student.wanted,
        "kv": student.kv,
        "sizes": ", ".join(map(str, student.sizes)),
        "ess": student.ess,
        "error": student.error,
        "accuracy": student.accuracy,
        "bytes": student.bytes,
    }


def _layers(student: DistilledStudent) -> list[dict[str, object]]:
    parts = zip(student.sizes, student.errors, student.predicted, student.bounds, strict=True)
    names = ("layer", "size", "error", "predicted", "bound")
    return [dict(zip(names, (layer, *values), strict=True)) for layer, values in enumerate(parts)]


def _lone(model: LoneModel) -> dict[str, object]:
    kind = f"alone, n = {model.key_size}"
    return {"kind": kind, "way": "alone", "kv": model.kv, "accuracy": model.accuracy, "bytes": model.bytes}


def _points(data: alt.Data, title: str, x: str, x_title: str, y: str, y_title: str) -> alt.Chart:
    return points(
        data,
        title,
        alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(zero=False)),
        alt.Y(f"{y}:Q", title=y_title),
        alt.Color("kind:N", title="Model"),
        ["kind:N", "kv:Q", "sizes:N", rounded(x, ".3"), rounded(y, ".3f")],
    )


def _predicted(data: alt.Data) -> alt.LayerChart:
    found = points(
        data,
        "Students and their prediction",
        alt.X("predicted:Q", title="Predicted: to stay below"),
        alt.Y("error:Q", title="Relative error of T, one layer"),
        palette("layer", "Layer"),
        ["layer:N", "size:Q", *(rounded(name, ".3f") for name in ("error", "predicted", "bound"))],
    )
    line = alt.Chart(data).mark_line(color="#888888").encode(x="predicted:Q", y="predicted:Q")
    return cast("alt.LayerChart", alt.layer(line, found))


def _frontier(data: alt.Data) -> alt.Chart:
    return (
        alt.Chart(data)
        .transform_aggregate(bytes="mean(bytes)", accuracy="mean(accuracy)", models="count()", groupby=["way", "kind"])
        .mark_line(point=True)
        .encode(
            x=alt.X("bytes:Q", title="Mean bytes of state of a sequence"),
            y=alt.Y("accuracy:Q", title="Mean accuracy"),
            color=palette("way", "Training"),
            order="bytes:Q",
            tooltip=["kind:N", "models:Q", rounded("bytes", ",.0f"), rounded("accuracy")],
        )
        .properties(width=SIDE, height=SIDE, title="Performance and efficiency")
    )
