"""Models on record: what a profile leaves for the table of measured models, and where a profile stands among them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from statesize.check import refuse
from statesize.errors import InputError
from statesize.io.files import replace_file
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
_SINKS, _APART, _ALIKE = 1.2, 1.5, 1.25
"""Factors above which sinks are told, weights differ by more than texts of a record do, and lengths do not compare."""
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
        old: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if old.get("weights") != new["weights"] or old.get("data") != data:
            raise InputError(
                f"record must be a new file, or one of the same weights and data, got {path}, which is of "
                f"{old.get('name')} over {old.get('data')}. Name another file."
            )
        (row,) = new["lengths"]
        others = [one for one in old["lengths"] if one["length"] != row["length"]]
        new = old | {"lengths": sorted([*others, row], key=lambda one: one["length"]), "made": new["made"]}
    replace_file(path, written(new))


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

    A profile alone of a model on record stands beside that model's own figures, by its own nearest length: over single
    texts, and of its untrained weights, as those of others say nothing about it. Others that read the same data follow.
    A measurement that is on record itself is not told as what is normal.

    Args:
        profiles: The profiles.
        weights: SHA-256 of the weights of a single profile, by which a model on record is known again.
        models: The models on record; None takes those of the package.

    Returns:
        What is normal, in a sentence for each kind of memory, and behind it what training does and others carry.
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
        alike = kept if own is None else [one for one in kept if one["data"] == own["data"]]
        found |= dict.fromkeys(_standing(profile, alike, own if len(profiles) == 1 and own in kept else None))
    return list(found)


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
    return [f"{NO_NEED}."], [f"Whether so many numbers suffice, this tests{own}: {command}"]


def _standing(profile: Profiled, models: Sequence[Mapping[str, Any]], own: Mapping[str, Any] | None) -> list[str]:
    """Where one profile stands, first beside its own model where that is known; none where no model is alike."""
    if not profile.mixers:
        return []
    name, length = position_name(profile), int(profile.tokens["length"].values.max())
    cuts = {float(cut) for layer in profile.mixers for cut in profile.mixer(layer)["middle"].values}
    kind = (carries(profile), name == "token")
    # Models of prose, by tokens or bytes, apart from those of speech or frames of numbers.
    alike = [one for one in models if (one["carries"], one["data"].endswith("of prose")) == kind]
    lengths, said, more = set[int](), list[str](), list[str]()
    for data, some in groupby(sorted(alike, key=lambda one: (one["data"], one["name"])), lambda one: one["data"]):
        each = list(some)
        known = {row["length"] for one in ([own] if own else each) for row in one["lengths"]}
        nearest = min(known, key=lambda one: (abs(math.log(one / length)), -one))
        lengths.add(nearest)
        rows = [(one, row) for one in each for row in one["lengths"] if row["length"] == nearest]
        unit = data.split()[0].removesuffix("s")
        # For a cache it is the tokens before the cut, which the length says.
        of = "" if kind[0] == "tokens kept" else " of {:.0f}"
        told = [
            f"{one['name']} {row['ess']:.1f}{of.format(row['of'])}{_beside_sinks(row)}"
            for one, row in rows
            if one is not own
        ]
        if own:
            (row,) = (row for one, row in rows if one is own)
            here = _here(profile) if _alike(cuts, nearest) else {}
            said.append(f", past {unit} {nearest // 2:,} of {nearest:,}: {own['name']} {_own_figures(row, of, here)}")
            more += [_training(row), f"Others there: {', '.join(told)}." if told else ""]
        else:
            place = f"past {unit} {nearest // 2:,} of {nearest:,} {data}"
            said.append(f"{';' if said else ','} {place}: {', '.join(told)}")
    if not said:
        return []
    if 2 * length < min(lengths):
        return [f"{counted(length, name)} are too few to compare with models on record, of {min(lengths)} and more."]
    first = "ESS on record" if lengths == {length} else "Nearest ESS on record"
    apart = not all(_alike(cuts, one) for one in lengths)
    said += [f". Here the cut is {middle_cut(profile)}: do not compare"] if apart else []
    normal = f"What is normal for {_NORMAL_OF[kind[0]]}? {first}{''.join(said)}. All: statesize models --measured"
    return [normal, *filter(None, [" ".join(filter(None, more))])]


def _alike(cuts: Iterable[float], length: int) -> bool:
    """Whether measured cuts are near enough to the middle of texts on record for their ESS to compare."""
    return all(length / _ALIKE < 2 * cut < length * _ALIKE for cut in cuts)


_NORMAL_OF = {
    "tokens kept": "a cache",
    "a fixed state": "a state of fixed size",
    "both": "caches and states in one model",
    "whole layers": "whole layers",
}


def _here(profile: Profiled) -> dict[str, float]:
    """What is carried at the middle, on average over the model, as a record has it."""
    rows, layers = profile.summary_rows(), comparable(profile)
    return {
        "ess": model_mean(profile, [row["middle_entropy"] for row in rows], layers),
        "ess_without_sinks": model_mean(profile, [row["sinkless_entropy"] for row in rows], layers),
    }


def _beside_sinks(row: Mapping[str, Any]) -> str:
    """ESS without sinks, in brackets; "" where it is about the same."""
    apart = row["ess_without_sinks"] > _SINKS * row["ess"]
    return f" ({row['ess_without_sinks']:.1f} without sinks)" if apart else ""


def _own_figures(row: Mapping[str, Any], of: str, here: Mapping[str, float]) -> str:
    """The numbers of a record, and their range over single texts."""
    sinks = _beside_sinks(row)
    told = [f"{row['ess']:.1f}{of.format(row['of'])}{_range(row, 'ess', here)}"]
    told += [f"{row['ess_without_sinks']:.1f} without sinks{_range(row, 'ess_without_sinks', here)}"] if sinks else []
    return ", ".join(told)


def _training(row: Mapping[str, Any]) -> str:
    """What training does to the numbers of a record; "" where that is not known, or only sinks hide it."""
    if row["untrained"] is None:
        return ""
    factors = [row[name] / row["untrained"] for name in ("ess", "ess_without_sinks")]
    if factors[0] <= _APART < factors[1]:
        # No untrained number without sinks is on record to stand beside it.
        return ""
    effect = "too near to tell trained weights from them"
    effect = "training lowers ESS of this model (others: raises or lowers)" if max(factors) < 1 / _APART else effect
    effect = "training raises ESS of this model (others: raises or lowers)" if min(factors) > _APART else effect
    return f"With untrained weights the ESS on record is {row['untrained']:.1f}: {effect}."


def _range(row: Mapping[str, Any], name: str, here: Mapping[str, float]) -> str:
    """Between which numbers single texts lie, and whether this profile does; "" where none are on record."""
    if name not in (row["texts"] or {}):
        return ""
    low, high, count = row["texts"][name]
    place = f"; here {here[name]:.1f}, {_place(here[name], low, high)}" if name in here else ""
    return f" ({low:.1f} to {high:.1f} in {count} single texts{place})"


def _place(value: float, low: float, high: float) -> str:
    return "below" if value < low else "above" if value > high else "inside"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
