"""How the numbers of a report were made, what was left out, and how far they can be trusted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

import numpy as np
import xarray as xr

from statesize.report.tables import figure_text, named_texts
from statesize.report.words import model_title
from statesize.results.fields import COUNTS
from statesize.results.protocol import Profiled
from statesize.results.summary import largest_difference, sample_of, unit_dim

# Facts of their own, or of no use to a reader.
_SHOWN_ELSEWHERE = {"tolerances", "relative_tolerances", "most_operations"}

_HEADINGS = ("Layer", "Engine", "Measured", "Error bound of σ", "Difference of the layer", "Difference of the run")


def provenance(profile: Profiled) -> str:
    """Versions, digests, settings, engines, error bounds and what was skipped, as HTML."""
    # What is not known has no line.
    known = {name: value for name, value in _facts(profile).items() if value}
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in known.items())
    title = model_title(profile)
    skipped = named_texts(f"Not measured in {title}:", profile.attributes["skipped"])
    notes = named_texts(f"Notes on {title}:", profile.notes)
    details = f"<summary>{escape(title)}</summary><dl>{items}</dl>{_layers(profile)}"
    return f"{skipped}{notes}<details>{details}</details>"


def _facts(profile: Profiled) -> dict[str, str]:
    attributes = profile.attributes
    mixers = [profile.mixer(name) for name in profile.mixers]
    lengths = profile.tokens["length"].values
    span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    settings = cast("dict[str, Any]", attributes.get("settings") or {})
    return {
        "Inputs": f"{len(lengths)} sequences of {span} tokens",
        "Weights, SHA-256": str(attributes["weights_sha256"]),
        "Tokens, SHA-256": str(attributes["tokens_sha256"]),
        "Run, SHA-256 of all settings": str(attributes.get("run_sha256") or ""),
        "Model": _source(attributes.get("source") or {}),
        "Numbers": f"operators in {', '.join(sorted({str(mixer.attrs['dtype']) for mixer in mixers}))}, singular "
        "values in float64",
        "Largest error of a singular value": f"{_largest(mixers, 'error_bound'):.1e}",
        "Largest error of an entropy-ESS": f"{_largest(mixers, 'entropy_bound'):.1e}",
        "Counts that the error bounds leave open": _open_counts(mixers),
        "Tolerances τ": ", ".join(f"{value:.2g}" for value in attributes["tolerances"]) or "none",
        "Relative tolerances ρ": ", ".join(f"{value:.2g}" for value in attributes["relative_tolerances"]) or "none",
        "Settings": _listed({key: value for key, value in settings.items() if key not in _SHOWN_ELSEWHERE}),
        "Command": _command(attributes.get("recipe")),
        "Threads": str(attributes.get("threads") or ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in attributes["versions"].items()),
        "Schema of the profile": str(attributes["schema"]),
        "Time": f"{attributes['seconds']:.1f} s",
    }


def _source(source: Mapping[str, Any]) -> str:
    """Where the model comes from, in words, and what else is known of how it was read."""
    kinds = {"bundled": "bundled model", "folder": "folder", "gguf": "GGUF file", "hub": "Hugging Face hub"}
    named = [kinds[str(source["kind"])]] if source.get("kind") in kinds else []
    rest = _listed({key: value for key, value in source.items() if key != "kind"})
    return ", ".join([*named, *([rest] if rest else [])])


def _command(recipe: Mapping[str, Any] | None) -> str:
    return shlex.join(["statesize", *map(str, recipe["command"])]) if recipe else ""


def _layers(profile: Profiled) -> str:
    rows: list[str] = []
    for name in profile.mixers:
        mixer = profile.mixer(name)
        faithfulness, run = (largest_difference(mixer, name) for name in ("faithfulness", "run_difference"))
        sample = sample_of(mixer)
        cells = (
            str(mixer.attrs["engine"]),
            f"{len(sample.units):,} of {sample.total:,} {unit_dim(mixer)}s",
            f"{_largest([mixer], 'error_bound'):.1e}",
            f"{faithfulness:.1e}" if np.isfinite(faithfulness) else "not checked: this layer reports its own matrix",
            f"{run:.1e}" if np.isfinite(run) else "not checked",
        )
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{row}</tr>')
    head = "".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS)
    title = f"Layers of {escape(model_title(profile), quote=True)}"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><p>Both differences are from the same model "
        "on the same text with nothing attached: of the operator applied to the layer’s input and of the layer’s "
        "output, and of the last hidden state, each relative to the largest value. Rounding explains at most 1e-5 in "
        "float32, 2e-3 in float16 and 1e-2 in bfloat16; what differs more is not measured.</p>"
    )


def _listed(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {'all' if value is None else value}" for name, value in facts.items())


def _open_counts(mixers: Sequence[xr.Dataset]) -> str:
    doubtful = total = 0
    for mixer in mixers:
        for counts in COUNTS:
            lower, upper = mixer[counts.lower].values, mixer[counts.upper].values
            known = np.isfinite(lower) & np.isfinite(upper)
            total += int(known.sum())
            doubtful += int((known & (lower != upper)).sum())
    return f"{doubtful:,} of {total:,}" + (f" ({figure_text(100 * doubtful / total)} %)" if doubtful else "")


def _largest(mixers: Sequence[xr.Dataset], name: str) -> float:
    return max((float(np.nanmax(mixer[name].values, initial=0.0)) for mixer in mixers), default=0.0)
