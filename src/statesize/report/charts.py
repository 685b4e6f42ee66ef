"""The charts of reports and notebooks, as Vega-Lite through altair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import altair as alt
import numpy as np
import xarray as xr

from statesize.drawing.curves import COLOURS, metric_title
from statesize.results.charts import check_metric, check_sequence, find_layer
from statesize.results.diagnosis import diagnose
from statesize.results.protocol import Profiled
from statesize.results.summary import ess_values, unit_dim

Row: TypeAlias = dict[str, str | int | float | None]

# Okabe and Ito's palette, in an order whose neighbours differ most; each has contrast on white and on near-black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MEAN, HEAD, CEILING, SPECIAL = "mean", "single heads", "ceiling", "special token"
ROLE_COLOURS: dict[str, str] = {**COLOURS, SPECIAL: "#D55E00"}
ROLE_COLOURS_ON_DARK = {MEAN: "#6CC4F5", HEAD: "#2F7FB0", CEILING: "#9A9A9A", SPECIAL: "#F08A4B"}


def positions_chart() -> alt.LayerChart:
    """ESS over positions against its ceiling, without its data.

    Returns:
        A chart of the named datasets "positions" (position, left, right, token, ess, ceiling, utilisation, norm),
        "heads" (position, head, ess) and "borders" (position, token); left and right are where the pointer finds it.
    """
    ceiling = _layer("positions", CEILING).mark_area(opacity=0.16, line={"strokeWidth": 1, "opacity": 0.8})
    borders = _layer("borders", SPECIAL).mark_rule(strokeDash=[2, 3], strokeWidth=1, opacity=0.75)
    heads = _layer("heads", HEAD).mark_line(strokeWidth=1, opacity=0.55).encode(y="ess:Q", detail="head:N")
    mean = _layer("positions", MEAN)
    hover = alt.selection_point(name="hover", fields=["position"], on="pointerover", clear="pointerout", empty=False)
    shown = alt.when(hover).then(alt.value(1)).otherwise(alt.value(0))
    tooltip = [
        alt.Tooltip("token:N", title="token"),
        alt.Tooltip("position:Q", title="position"),
        alt.Tooltip("ess:Q", title="ESS", format=".2f"),
        alt.Tooltip("ceiling:Q", title="ceiling"),
        alt.Tooltip("utilisation:Q", title="utilisation", format=".0%"),
        alt.Tooltip("norm:Q", title="norm", format=".3g"),
    ]
    return alt.LayerChart(
        layer=[
            ceiling.encode(y=alt.Y("ceiling:Q", title="ESS (numbers of state per channel)", stack=None)),
            borders,
            heads,
            mean.mark_line(strokeWidth=2.2).encode(y="ess:Q"),
            mean.mark_point(filled=True, size=70).encode(y="ess:Q", opacity=shown),
            # Bars of full height for the pointer: Vega-Lite's nearest selection loses text fields of a tooltip.
            mean.mark_rect(opacity=0).encode(x=_position("left"), x2="right:Q", tooltip=tooltip).add_params(hover),
        ]
    ).properties(width="container", height=340)


def _layer(dataset: str, role: str) -> alt.Chart:
    # A constant role as a field, because Vega-Lite gives a datum no scale of its own.
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    scale = alt.Scale(domain=list(ROLE_COLOURS), range=list(ROLE_COLOURS.values()))
    chart = alt.Chart(alt.NamedData(dataset)).transform_calculate(role=f"'{role}'")
    return chart.encode(x=_position("position"), color=alt.Color("role:N", scale=scale, legend=legend))


def _position(field: str) -> alt.X:
    return alt.X(
        f"{field}:Q",
        title="Position in the sequence (tokens)",
        scale=alt.Scale(nice=False, zero=False),
        axis=alt.Axis(tickCount=10),
    )


def layers_chart(models: Sequence[str]) -> alt.Chart:
    """Utilisation of each layer of each model, without its data.

    Args:
        models: The models' names, in the order in which they are drawn.

    Returns:
        A chart of the named dataset "layers" (model, layer, short, kind, utilisation, average_entropy, tss).
    """
    colours = [PALETTE[index % len(PALETTE)] for index in range(len(models))]
    return (
        alt.Chart(alt.NamedData("layers"))
        .mark_bar()
        .encode(
            x=alt.X("short:N", title="Layer", sort=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset("model:N", sort=list(models)),
            y=alt.Y(
                "utilisation:Q",
                title="Utilisation (mean ESS ÷ ceiling)",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=5),
            ),
            color=alt.Color(
                "model:N",
                sort=list(models),
                scale=alt.Scale(domain=list(models), range=colours),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("layer:N"),
                alt.Tooltip("kind:N"),
                alt.Tooltip("relative_utilisation:Q", title="utilisation, relative", format=".1%"),
                alt.Tooltip("utilisation:Q", title="utilisation, entropy", format=".1%"),
                alt.Tooltip("average_entropy:Q", title="average entropy-ESS", format=".2f"),
                alt.Tooltip("tss:Q", title="TSS"),
            ],
        )
        .properties(width="container", height=240)
    )


def layer_rows(profiles: Sequence[Profiled]) -> list[Row]:
    """The dataset of `layers_chart`.

    Args:
        profiles: One a model.

    Returns:
        One row a mixer; "relative_utilisation" is there where the profile has relative tolerances.
    """
    rows: list[Row] = []
    for profile in profiles:
        names = short_names(profile.mixers)
        known = diagnose(profile) if profile.attributes["relative_tolerances"] else []
        relative = {item.layer: json_number(item.utilisation) for item in known}
        for row in profile.summary_rows():
            keys = ("model", "layer", "kind", "utilisation", "average_entropy", "tss")
            found = {"short": names[row["layer"]]} | {key: json_number(row[key]) for key in keys}
            rows.append(found | ({"relative_utilisation": relative[row["layer"]]} if relative else {}))
    return rows


def profile_layers(profiles: Sequence[Profiled]) -> alt.Chart:
    """Utilisation of each layer of some profiles.

    Args:
        profiles: One a model.

    Returns:
        A chart with its data.
    """
    chart = layers_chart([profile.model for profile in profiles])
    return chart.properties(width=480, datasets=alt.Datasets(layers=layer_rows(profiles)))


def profile_positions(profile: Profiled, layer: int | str, sequence: int, metric: str) -> alt.LayerChart:
    """ESS over the positions of one sequence of a profile; one that is not there is an InputError.

    Args:
        profile: The profile.
        layer: A mixer, by index or name.
        sequence: Index of the sequence.
        metric: One of `drawing.curves.METRICS`.

    Returns:
        A chart with its data.
    """
    title = metric_title(metric)
    name, mixer = find_layer(profile, layer)
    check_sequence(mixer, sequence)
    check_metric(mixer, metric)
    datasets = position_rows(mixer, profile.tokens, sequence, metric)
    return positions_chart().properties(
        width=640, title=f"{profile.model}, {name}: {title}", datasets=alt.Datasets(**datasets)
    )


def position_rows(mixer: xr.Dataset, tokens: xr.Dataset, sequence: int, metric: str) -> dict[str, list[Row]]:
    """The datasets of `positions_chart`.

    Args:
        mixer: A mixer's dataset.
        tokens: The profile's tokens.
        sequence: Index of the sequence.
        metric: One of `drawing.curves.METRICS`.

    Returns:
        Rows by the name of the dataset.
    """
    ess = ess_values(mixer, metric)[sequence]
    known = np.isfinite(ess).all(0)
    positions = mixer["position"].values[known]
    texts = [show_token(str(token)) for token in tokens["tokens"].values[sequence]]
    mean = ess[:, known].mean(0)
    ceiling = mixer["ceiling"].values[sequence, known]
    norm = mixer["norm"].values[sequence][:, known].mean(0)
    special = np.flatnonzero(tokens["special"].values[sequence])
    unit = unit_dim(mixer)
    borders = (positions[1:] + positions[:-1]) / 2
    lefts, rights = np.append(positions[:1], borders), np.append(borders, positions[-1:])
    return {
        "positions": [
            {
                "position": int(position),
                "left": float(lefts[index]),
                "right": float(rights[index]),
                "token": texts[position],
                "ess": json_number(mean[index]),
                "ceiling": json_number(ceiling[index]),
                "utilisation": json_number(mean[index] / ceiling[index]) if ceiling[index] else None,
                "norm": json_number(norm[index]),
            }
            for index, position in enumerate(positions)
        ],
        "heads": [
            {"position": int(position), "head": f"{unit} {head}", "ess": json_number(value)}
            for head, values in enumerate(ess[:, known])
            for position, value in zip(positions, values, strict=True)
        ],
        "borders": [{"position": int(position), "token": texts[position]} for position in special],
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the dotted parts that all of them begin and end with.

    Args:
        names: Module names.

    Returns:
        Short names by name.

    Example:
        >>> short_names(["layers.0.mixer", "layers.1.mixer"])
        {'layers.0.mixer': '0', 'layers.1.mixer': '1'}
    """
    parts = [name.split(".") for name in names]
    shortest = min((len(part) for part in parts), default=0)
    start = 0
    while start < shortest - 1 and len({part[start] for part in parts}) == 1:
        start += 1
    end = 0
    while end < shortest - start - 1 and len({part[-1 - end] for part in parts}) == 1:
        end += 1
    return {name: ".".join(part[start : len(part) - end]) for name, part in zip(names, parts, strict=True)}


def show_token(token: str) -> str:
    """A token with its white space made visible.

    Args:
        token: Any text.

    Returns:
        Text with a sign for each space, tab and line end.
    """
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def json_number(value: object) -> str | int | float | None:
    """A value that JSON can hold, numbers at four significant digits, and None for what is not finite.

    Args:
        value: A number or text.

    Returns:
        The same as a Python value.
    """
    if isinstance(value, str | int):
        return value
    number = float(value)  # pyright: ignore[reportArgumentType]
    if not np.isfinite(number):
        return None
    rounded = float(f"{number:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
