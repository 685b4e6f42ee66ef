"""Models on record: what a profile leaves for the table of measured models, and where a profile stands among them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from statesize.check import refuse
from statesize.errors import FileError, InputError
from statesize.io.files import parse_json, read_limited, replace_file
from statesize.io.text import counted
from statesize.measurement.statistics import FEWEST_TEXTS
from statesize.report.names import kind_title, model_title, position_name
from statesize.report.words import middle_cut
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import at_middle, ess_values, keeps_everything, known_mean, middle_ceiling

SCHEMA = 1
TABLE = "on_record.json"
TO_BE_SAID = ("package", "licence", "check")
"""What only whoever adds a model can say; a record of the command line has them empty."""
NO_NEED = "ESS is what a layer carries of this text, not what a task needs: more of it makes no better model"
OWN_TEXTS = "TEXTS.jsonl"
"""Stands in a command for texts that its reader has to give."""
DIGEST = 16
"""How much of the digest of a model's weights the package keeps, to know the model again."""
_SINKS, _ALIKE = 1.2, 1.25
"""Factors above which sinks are told, and above which lengths do not compare."""
SPREAD = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Quantiles over heads or channels."""


def length_row(profile: Profiled) -> dict[str, Any]:
    """ESS at the middle of texts of one length: of the model, its spread over heads, and of each layer.

    Returns:
        Means over the model, quantiles over heads or channels, and means of each layer.

    Raises:
        InputError: The texts have several lengths, or their middle was not measured.
    """
    lengths = {int(length) for length in profile.tokens["length"].values}
    if len(lengths) > 1:
        refuse("texts", "of one length for a record", f"{min(lengths)} to {max(lengths)} tokens", "Give --max-tokens.")
    (length,), layers = lengths, comparable(profile)
    nodes, rows = [profile.mixer(name) for name in profile.mixers], profile.summary_rows()
    cuts = {int(cut) for node in nodes for cut in node["middle"].values}
    if cuts != {length // 2}:
        refuse("positions", f"such that the middle, {length // 2}, is among them", cuts, "Leave out --positions.")
    ceilings = [middle_ceiling(node) for node in nodes]
    units = [known_mean(at_middle(nodes[at], ess_values(nodes[at], "entropy")), 0) for at in layers]
    figures: dict[str, Sequence[float]] = {
        "ess": [row["middle_entropy"] for row in rows],
        "ess_without_sinks": [row["sinkless_entropy"] for row in rows],
        "of": ceilings,
        "norm": [row["norm"] for row in rows],
    }
    return {
        "length": length,
        "sequences": profile.tokens.sizes["sequence"],
        "inputs_sha256": profile.attributes["tokens_sha256"],
        **{name: _short(model_mean(profile, each, layers)) for name, each in figures.items()},
        "spread": [_short(value) for value in np.nanquantile(np.concatenate(units), SPREAD)],
        "layers": [
            {"layer": rows[at]["layer"], "kind": rows[at]["kind"]}
            | {name: _short(each[at]) for name, each in figures.items()}
            | {"sink_share": None if math.isnan(rows[at]["sink_share"]) else _short(rows[at]["sink_share"])}
            | {"measured": rows[at]["measured"], "units": rows[at]["units"]}
            for at in layers
        ],
    }


def record(profile: Profiled, data: str, weights: str) -> dict[str, Any]:
    """A record of one length: `data` says what was read, such as "tokens of prose", and `weights` is a SHA-256."""
    return {
        "schema": SCHEMA,
        "name": profile.model.rpartition("/")[2],
        **dict.fromkeys(TO_BE_SAID, ""),
        "data": data,
        "carries": carries(profile),
        "weights": weights,
        "not_measured": profile.not_measured,
        "lengths": [length_row(profile)],
        "untrained": [],
        "made": {
            "command": (profile.attributes.get("source") or {}).get("command", ""),
            "versions": profile.attributes["versions"],
            "date": datetime.now(UTC).date().isoformat(),
        },
    }


def add_to(path: Path, profile: Profiled, data: str, weights: str) -> None:
    """Write the record of a profile, or its length into the record of the same weights that is there.

    Raises:
        InputError: The file has a record of other weights.
    """
    new = record(profile, data, weights)
    if path.exists():
        old = read_record(path)
        if old.get("weights") != new["weights"] or old.get("data") != data:
            raise InputError(
                f"record must be a new file, or one of the same weights and data, got {path}, which is of "
                f"{old.get('name')} over {old.get('data')}. Name another file."
            )
        (row,) = new["lengths"]
        others = [one for one in old["lengths"] if one["length"] != row["length"]]
        new = old | {"lengths": sorted([*others, row], key=lambda one: one["length"]), "made": new["made"]}
    replace_file(path, written(new))


def read_record(path: Path) -> dict[str, Any]:
    """The record of a model in a file; a FileError where it holds none of this schema."""
    try:
        old = parse_json(read_limited(path))
    except (OSError, ValueError) as error:
        raise FileError(f"record must be a new file or a record, got {path} ({error}). Name another file.") from error
    found = cast("dict[str, Any]", old) if isinstance(old, dict) else {}
    if found.get("schema") != SCHEMA:
        raise FileError(f"record must be a new file or a record, got {path}, which is none of schema {SCHEMA}.")
    return found


def written(record: Mapping[str, Any]) -> bytes:
    """A record as its file: an entry per line, so that changes can be read."""
    entries = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in record.items())
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def carries(profile: Profiled) -> str:
    """What its ESS is a number of, which decides whose numbers stand beside it."""
    nodes = [profile.mixer(profile.mixers[at]) for at in comparable(profile)]
    if all(node.attrs["kind"] == "derivative" for node in nodes):
        return "whole layers"
    caches = {keeps_everything(node) or "sliding" in str(node.attrs["kind"]) for node in nodes}
    return "both" if len(caches) > 1 else "tokens kept" if caches.pop() else "a fixed state"


def table_row(record: Mapping[str, Any], texts: Mapping[int, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What the package keeps of a record, and least and most of single texts, and how many, by their length."""
    untrained = {row["length"]: row["ess"] for row in record["untrained"]}
    kinds = dict.fromkeys(layer["kind"] for row in record["lengths"] for layer in row["layers"])
    return {
        "name": record["name"],
        "data": record["data"],
        "carries": record["carries"],
        "weights": record["weights"][:DIGEST],
        "kind": ", ".join(map(kind_title, kinds)),
        "lengths": [
            {name: row[name] for name in ("length", "ess", "ess_without_sinks", "of")}
            | {"untrained": untrained.get(row["length"]), "inputs": row["inputs_sha256"][:DIGEST]}
            | {"texts": texts.get(row["length"])}
            for row in record["lengths"]
        ],
    }


def measured_models() -> list[dict[str, Any]]:
    """The models on record, from the package."""
    text = files("statesize.report").joinpath(TABLE).read_text("utf-8")
    return cast("list[dict[str, Any]]", json.loads(text)["models"])


def standing(
    profiles: Sequence[Profiled], weights: str = "", models: Sequence[Mapping[str, Any]] | None = None
) -> list[str]:
    """What is normal: models on record that carry what these do, at the length nearest to their texts.

    A model on record stands first beside a profile alone of it, with its figures over single texts and of untrained
    weights, and others that read the same data follow. A measurement that is on record itself is not told as normal.

    Args:
        profiles: The profiles.
        weights: SHA-256 of the weights of a single profile, by which a model on record is known again.
        models: The models on record; None takes those of the package.

    Returns:
        What is normal, in a sentence for each kind of memory, and behind it what untrained weights carry.
    """
    known, digests = models or measured_models(), [weights or one.attributes["weights_sha256"] for one in profiles]
    shown = {
        (digest[:DIGEST], one.attributes["tokens_sha256"][:DIGEST])
        for one, digest in zip(profiles, digests, strict=True)
    }
    kept = [one for one in known if not any((one["weights"], row["inputs"]) in shown for row in one["lengths"])]
    found: dict[str, None] = {}
    for profile, digest in zip(profiles, digests, strict=True):
        own = next((one for one in known if digest.startswith(one["weights"])), None)
        alike = [one for one in kept if own is None or one["data"] == own["data"]]
        if profile.mixers:
            found |= dict.fromkeys(_standing(profile, alike, own if len(profiles) == 1 and own in kept else None))
    return list(found)


def _standing(profile: Profiled, models: Sequence[Mapping[str, Any]], own: Mapping[str, Any] | None) -> list[str]:
    """Where one profile stands; none where no model is alike, or only a part of one was measured."""
    settings = profile.attributes["settings"]
    if any(settings.get(part) is not None for part in ("past", "future", "layers")):
        return []
    name, length = position_name(profile), int(profile.tokens["length"].values.max())
    kind = (carries(profile), name == "token")
    # Models of prose, by tokens or bytes, apart from those of speech or frames of numbers.
    alike = [one for one in models if (one["carries"], one["data"].endswith("of prose")) == kind]
    alike.sort(key=lambda one: (one["data"], one is not own, one["name"]))
    lengths, said, untrained = set[int](), list[str](), None
    for data, some in groupby(alike, lambda one: one["data"]):
        each = list(some)
        known = {row["length"] for one in ([own] if own else each) for row in one["lengths"]}
        nearest = min(known, key=lambda one: (abs(math.log(one / length)), -one))
        lengths.add(nearest)
        rows = [(one, row) for one in each for row in one["lengths"] if row["length"] == nearest]
        told = ", ".join(f"{one['name']} {_figures(row, one is own, kind[0])}" for one, row in rows)
        said.append(f"past {data.split()[0].removesuffix('s')} {nearest // 2:,} of {nearest:,} {data}: {told}")
        untrained = next((row["untrained"] for one, row in rows if one is own), None)
    if not said:
        return []
    if 2 * length < min(lengths):
        return [f"{counted(length, name)} are too few to compare with models on record, of {min(lengths)} and more."]
    first = "ESS on record" if lengths == {length} else "Nearest ESS on record"
    cuts = {float(cut) for layer in profile.mixers for cut in profile.mixer(layer)["middle"].values}
    near = all(one / _ALIKE < 2 * cut < one * _ALIKE for one in lengths for cut in cuts)
    apart = "" if near else f" Here the cut is {middle_cut(profile)}: do not compare."
    normal = f"What is normal for {_NORMAL_OF[kind[0]]}? {first}, {'; '.join(said)}.{apart}"
    return [normal] if untrained is None else [normal, f"With untrained weights the ESS on record is {untrained:.1f}."]


_NORMAL_OF = {
    "tokens kept": "a cache",
    "a fixed state": "a state of fixed size",
    "both": "caches and states in one model",
    "whole layers": "whole layers",
}


def _figures(row: Mapping[str, Any], own: bool, carried: str) -> str:
    """ESS of a record, without sinks where these hide some, and of the model itself its range over single texts."""
    shown = {"ess": "", "ess_without_sinks": " without sinks"}
    if row["ess_without_sinks"] <= _SINKS * row["ess"]:
        del shown["ess_without_sinks"]
    texts: Mapping[str, Sequence[float]] = (row["texts"] or {}) if own else {}
    ranges = {name: " ({:.1f} to {:.1f} in {} single texts)".format(*ends) for name, ends in texts.items()}
    # What a cache could carry are the tokens before the cut, which the length says.
    of = "" if carried == "tokens kept" else f" of {row['of']:.0f}"
    told = [f"{row[name]:.1f}{'' if sinks else of}{sinks}{ranges.get(name, '')}" for name, sinks in shown.items()]
    return " and ".join(told)


def what_suffices(profiles: Sequence[Profiled]) -> tuple[list[str], list[str]]:
    """What ESS does not tell and truncation tests told, then what to do next: the test, where none was made."""
    tested = [
        f"What suffices{f' for {model_title(one)} ({one.model})' if len(profiles) > 1 else ''}: {said}"
        for one in profiles
        if (said := one.attributes.get("truncation"))
    ]
    if tested:
        return [*tested, f"{NO_NEED}."], []
    source: Mapping[str, str] = profiles[0].attributes.get("source") or {}
    model = profiles[0].model if source.get("kind") == "bundled" else f"MODEL --jsonl {OWN_TEXTS}"
    command = source.get("test") or f"statesize truncate {model}"
    own = f" ({OWN_TEXTS}: at least {FEWEST_TEXTS} texts of yours, one in each row)" if OWN_TEXTS in command else ""
    without = " without the prefix" if "--prefix" in source.get("command", "") else ""
    return [f"{NO_NEED}."], [f"Whether so many numbers suffice{without}, this tests{own}: {command}"]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
