"""One self-contained HTML file: charts, the table of all layers, and how the numbers were made."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import vl_convert

from statesize.errors import FileError, InputError
from statesize.profiling import Profile
from statesize.profiling.comparison import compare
from statesize.profiling.summary import COLUMNS
from statesize.report.cells import figure_text, share_cell
from statesize.report.charts import layer_rows, layers_chart, positions_chart
from statesize.report.comparison import comparison_section
from statesize.report.data import Extent, choose_extent, page_data

HEADINGS = {
    "model": "Model",
    "layer": "Layer",
    "kind": "Kind",
    "tss": "TSS",
    "average_entropy": "Average ESS, entropy",
    "average_relative_tolerance": "Average ESS, relative tolerance",
    "total_entropy": "Total ESS, entropy",
    "total_relative_tolerance": "Total ESS, relative tolerance",
    "norm": "Norm",
    "utilisation": "Utilisation",
}


def write_report(
    profiles: Sequence[Profile], path: str | os.PathLike[str], recall: Mapping[str, float] | None = None
) -> Path:
    """Write one HTML file about one or several profiles; the same profiles give the same bytes.

    Args:
        profiles: What it shows, in this order; several are also put side by side.
        path: The file; replaced once the new one is complete.
        recall: As for `statesize.compare`.

    Returns:
        The file.

    Raises:
        InputError: If there is no profile.
        FileError: If the file cannot be written.
    """
    if not profiles:
        raise InputError("A report needs at least one profile; none was given.")
    path = Path(path)
    check_report_path(path)
    page = render(profiles, recall)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".statesize-", suffix=".html", dir=path.absolute().parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            # mkstemp makes files that only the owner can read; a report is as public as any other file of its owner.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def check_report_path(path: Path) -> None:
    """Refuse a place where no report can be written, before any work is done.

    Args:
        path: The file that would be made.

    Raises:
        FileError: If it is a folder, or its folder is missing or cannot be written to.
    """
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file for the report.")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}. Give a file in a writable folder.") from error


def render(profiles: Sequence[Profile], recall: Mapping[str, float] | None = None) -> str:
    """The page as text.

    Args:
        profiles: What it shows.
        recall: As for `statesize.compare`.

    Returns:
        HTML.
    """
    extent = choose_extent(profiles)
    names = list(dict.fromkeys(profile.model for profile in profiles))
    data = {
        "charts": {
            "layers": layers_chart(names).properties(datasets={"layers": layer_rows(profiles)}).to_dict(),
            "positions": positions_chart().to_dict(),
        },
        **page_data(profiles, extent),
    }
    scripts = (_vega(), _resource("page.js"))
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f"Effective state-size of {', '.join(names)}"
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{_resource('page.css')}</style>",
        "</head>",
        "<body>",
        _body(profiles, extent, title, recall),
        f'<script type="application/json" id="data">{embedded_json(data)}</script>',
        *(f"<script>{script}</script>" for script in scripts),
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def embedded_json(data: object) -> str:
    r"""JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes.

    Args:
        data: JSON values.

    Returns:
        Text for the inside of a script element.

    Example:
        >>> embedded_json(["</script>"])
        '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _vega() -> str:
    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def _resource(name: str) -> str:
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _body(profiles: Sequence[Profile], extent: Extent, title: str, recall: Mapping[str, float] | None) -> str:
    rho = profiles[0].attributes["relative_tolerances"]
    replacements = {
        "title": escape(title),
        "comparison": comparison_section(compare(profiles, recall)) if len(profiles) > 1 else "",
        "table": _table(profiles),
        "definitions": "".join(
            f"<dt>{escape(HEADINGS[name])}</dt><dd>{escape(_definition(name, rho))}</dd>"
            for name in HEADINGS
            if name not in {"model", "layer", "kind"}
        ),
        "provenance": "".join(_provenance(profile) for profile in profiles),
        "extent": escape(_extent_note(profiles, extent)),
    }
    body = _resource("page.html")
    for name, value in replacements.items():
        body = body.replace(f"<!-- {name} -->", value)
    return body


def _definition(name: str, rho: Sequence[float]) -> str:
    return COLUMNS[name].replace("ρ times", f"{rho[0]:g} times") if rho else COLUMNS[name]


def _extent_note(profiles: Sequence[Profile], extent: Extent) -> str:
    count = max(int(profile.tokens.sizes["sequence"]) for profile in profiles)
    notes: list[str] = []
    if extent.sequences < count:
        notes.append(f"The first {extent.sequences} of {count} sequences are drawn; the table covers all.")
    if not extent.heads:
        notes.append("Single heads are left out, because they would make this file too large.")
    if extent.stride > 1:
        notes.append(f"One position in {extent.stride} is drawn.")
    return " ".join(notes)


def _table(profiles: Sequence[Profile]) -> str:
    rows: list[str] = []
    for profile in profiles:
        cells = ["".join(_cell(name, row[name]) for name in HEADINGS) for row in profile.summary_rows()]
        rows.append(f"<tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody>")
    head = "".join(
        f'<th scope="col"{"" if name in {"model", "layer", "kind"} else " class=number"}>{escape(heading)}</th>'
        for name, heading in HEADINGS.items()
    )
    return f"<table><thead><tr>{head}</tr></thead>{''.join(rows)}</table>"


def _cell(name: str, value: Any) -> str:
    if name == "model":
        return f'<th scope="row">{escape(str(value))}</th>'
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    if not np.isfinite(value):
        return "<td class=number>–</td>"
    if name == "utilisation":
        return share_cell(value)
    return f"<td class=number>{value:.0f}</td>" if name == "tss" else f"<td class=number>{figure_text(value)}</td>"


def _provenance(profile: Profile) -> str:
    attributes = profile.attributes
    mixers = [profile.mixer(name) for name in profile.mixers]
    engines = sorted({str(mixer.attrs["engine"]) for mixer in mixers})
    dtypes = sorted({str(mixer.attrs["dtype"]) for mixer in mixers})
    lengths = profile.tokens["length"].values
    span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    facts = {
        "Inputs": f"{len(lengths)} sequences of {span} tokens",
        "Weights, SHA-256": attributes["weights_sha256"],
        "Tokens, SHA-256": attributes["tokens_sha256"],
        "Engine": ", ".join(engines),
        "Numbers": f"operators in {', '.join(dtypes)}, singular values in float64",
        "Largest error of a singular value": f"{_largest(mixers, 'error_bound'):.1e}",
        "Largest error of an entropy-ESS": f"{_largest(mixers, 'entropy_bound'):.1e}",
        "Tolerances τ": ", ".join(f"{value:g}" for value in attributes["tolerances"]) or "none",
        "Relative tolerances ρ": ", ".join(f"{value:g}" for value in attributes["relative_tolerances"]) or "none",
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Time": f"{attributes['seconds']:.1f} s",
    }
    if attributes["skipped"]:
        facts["Skipped"] = "; ".join(f"{name}: {reason}" for name, reason in attributes["skipped"].items())
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f"<details><summary>{escape(profile.model)}</summary><dl>{items}</dl></details>"


def _largest(mixers: Sequence[Any], name: str) -> float:
    return max((float(np.nanmax(mixer[name].values, initial=0.0)) for mixer in mixers), default=0.0)
