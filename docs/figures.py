"""The figures of the pages, from the JSON documents beside them: `{{ fuzz.calls }}` on a page is one of these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from statesize import zoo
from statesize.studies.catalogue import GRID_STUDIES

DOCS = Path(__file__).parent
MEBIBYTE = 2**20


def figures(docs: Path = DOCS) -> dict[str, dict[str, str]]:
    """All figures as text, by document and name."""
    parts = (fuzz, agreement, determinism, soak, largest, budget, mutation, coverage, faults, strangers, compression)
    kept = {part.__name__: part(json.loads((docs / f"{part.__name__}.json").read_text("utf-8"))) for part in parts}
    return kept | {"bundled": bundled(), "results": results(docs / "results"), "findings": findings(docs / "results")}


def fuzz(document: Mapping[str, Any]) -> dict[str, str]:
    """Random calls: how many gave a right answer, how many a refusal."""
    answered, refused = (f"{sum(document[kind].values()):,}" for kind in ("answered", "refused"))
    return {
        **_numbers(document, "calls", "seed"),
        "answered": answered,
        "refused": refused,
        "findings": str(len(document["findings"])),
        "seconds": f"{document['seconds']:.0f}",
    }


def agreement(document: Mapping[str, Any]) -> dict[str, str]:
    """Engines against each other, mpmath and SLICOT."""
    found: dict[str, str] = {}
    for name in ("engine_pairs", "mpmath", "slicot"):
        part = document[name]
        found |= {f"{name}_{key}": value for key, value in _numbers(part, "compared", "outside").items()}
        if name != "slicot":
            found |= {f"{name}_{kind}": f"{part[f'largest_{kind}']:.2f}" for kind in ("values", "entropy")}
    pairs = document["engine_pairs"]
    return found | {
        **_numbers(pairs, "pairs", "operators", "families"),
        "shortest": str(pairs["lengths"][0]),
        "longest": str(pairs["lengths"][1]),
        "mpmath_operators": str(document["mpmath"]["operators"]),
        "systems": str(document["slicot"]["systems"]),
        "farthest": f"{document['slicot']['largest_difference']:.0e}",
    }


def determinism(document: Mapping[str, Any]) -> dict[str, str]:
    """The same again: verdicts by what was another."""
    compared = document["compared"]
    return {
        "models": str(len(document["models"])),
        "same_threads": _verdicts(compared["same threads"]),
        "other_threads": _verdicts(compared["other threads"]),
        "again": _verdicts(compared["runs of a study, again"]),
        "processes": _verdicts(compared["runs of a study, in processes"]),
    }


def soak(document: Mapping[str, Any]) -> dict[str, str]:
    """What a process held at the start and at the end of many calls."""
    found = {"minutes": str(document["seconds"] // 60), **_numbers(document, "calls", "models")}
    for end in ("start", "end"):
        held = document[end]
        found |= {f"{end}_{name}": f"{held[name]:,}" for name in ("threads", "descriptors", "modules")}
        found[f"{end}_resident"] = f"{held['resident'] / MEBIBYTE:.0f}"
    rate, error = (number / 1e6 for number in document["resident_per_hour"])
    return found | {
        "most_resident": f"{document['most_resident'] / MEBIBYTE:.0f}",
        "left": str(len(document["left"])),
        "growth": f"{rate:.0f} ± {error:.0f}",
    }


def largest(document: Mapping[str, Any]) -> dict[str, str]:
    """The longest operator of each engine, and its memory against what the engine expects of itself."""
    rows = [
        (
            f"`{row['engine']}`",
            row["operator"],
            f"{row['length']:,}",
            ", ".join(f"{one['peak'] / one['model']:.2f} at {one['length']:,}" for one in row["peaks"]),
        )
        for row in document["rows"]
    ]
    return {"table": _table(("engine", "operator", f"longest in {document['gigabytes']:.0f} GB", "peak / model"), rows)}


def budget(document: Mapping[str, Any]) -> dict[str, str]:
    """What a profile held beside the model, against the memory that it was given or asked for."""
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        asked = f"{row['memory'] / 1e6:,.0f} MB" if row["refused"] else "–"
        share = f"{row['peak'] / row['memory']:.2f}"
        rows.append((row["model"], f"{row['length']:,}", asked, f"{row['peak'] / 1e6:,.0f} MB", share))
    headings = ("model", "tokens", "refused; would do", "peak", "peak / memory")
    return {"table": _table(headings, rows), "given": document["memory"]}


def strangers(document: Mapping[str, Any]) -> dict[str, str]:
    """Files of strangers and signals: how many, and how many ended badly."""
    return _numbers(document, "files", "signals", "seed", "findings")


def mutation(document: Mapping[str, Any]) -> dict[str, str]:
    """How many changes of the code the tests notice."""
    killed, made, (low, high) = document["killed"], document["made"], document["interval"]
    before = document["before"]
    return {
        **_numbers(document, "killed", "made", "every"),
        **{name: f"{share:.1%}" for name, share in (("share", killed / made), ("low", low), ("high", high))},
        "before": f"{before['killed']} of {before['made']}",
    }


def coverage(document: Mapping[str, Any]) -> dict[str, str]:
    """Branches and statements that the tests take."""
    share = document["covered_branches"] / document["num_branches"]
    return _numbers(document, "covered_branches", "num_branches", "covered_lines", "num_statements") | {
        "share": f"{share:.1%}"
    }


def faults(document: Mapping[str, Any]) -> dict[str, str]:
    """Faults by kind, and what came of them."""
    return {
        **_numbers(document, "faults", "seed", "lost", "problems"),
        "on_ray": str(sum("Ray" in survival["job"] for survival in document["survivals"])),
        "seconds": f"{document['seconds']:,.0f}",
        "table": _table(("fault", "times"), [(name, str(times)) for name, times in document["by_fault"].items()]),
    }


def compression(document: Mapping[str, Any]) -> dict[str, str]:
    """Half the state: means over seeds, the bundled models, which numbers tell the damage, and recall."""
    shown = ("compress", "int8 alone", "a quarter with int8")
    rows = [
        (
            f"`{mixer}`",
            _bits(found["extra"]["compress"]),
            f"{_bits(found['extra'][found['best_channels']])}, {found['best_channels']}",
            "{:.2f} ({:.2f} to {:.2f})".format(*found["share_of_best_channels"]),
            *(_bits(found["extra"][name]) for name in shown[1:]),
        )
        for mixer, found in document["mixers"].items()
    ]
    own = [
        (f"`{name}`", *(_bits(found["extra"][way]) for way in (*shown, "key energy", "weights", "random")))
        for name, found in document["bundled"].items()
    ]
    predictors = list(document["mixers"]["gla"]["rank_correlations"])
    told = [
        (name, *(_correlation(found["rank_correlations"].get(name)) for found in document["mixers"].values()))
        for name in predictors
    ]
    damaged = [row for row in document["recall"] if row["lost_nats"] >= 0.1]
    lost = [row["lost_nats"] for row in document["recall"]]
    before, after = document["bundled"]["gla"]["samples"]
    return {
        "table": _table(("mixer", "`compress`", "best channels", "share", "int8 alone", "a quarter by both"), rows),
        "bundled": _table(("model", *shown, "channels by key energy", "by weights", "at random"), own),
        "predictors": _table(("predictor", *(f"`{mixer}`" for mixer in document["mixers"])), told),
        "seeds": str(document["mixers"]["la"]["seeds"]),
        "steps": str(document["training"]["steps"]),
        "documents": str(document["held_out_documents"]),
        "recall_models": str(len(lost)),
        "recall_damaged": str(len(damaged)),
        "recall_flagged": str(sum(row["safe"] is False for row in damaged)),
        "recall_least": f"{min(lost):.2f}",
        "recall_most": f"{max(lost):.2f}",
        "sample_before": before,
        "sample_after": after,
    }


def _bits(ends: Sequence[float]) -> str:
    """An estimate with its interval."""
    value, low, high = ends
    return f"{value:.4f} ({low:.4f} to {high:.4f})"


def _correlation(ends: Sequence[float] | None) -> str:
    """A mean correlation with its interval; a dash where the predictor is the same for all heads."""
    return "–" if ends is None else "{:.2f} ({:.2f} to {:.2f})".format(*ends)


def bundled() -> dict[str, str]:
    """The bundled models: their figures on held-out text, from their own records."""
    records = {name: zoo.record(name) for name in zoo.names()}
    rows = [(name, f"{record['parameters']:,}", *_report(record["held_out"])) for name, record in records.items()]
    baselines = records["gla"]["baselines"]
    rows.append(("trigram, interpolated Kneser–Ney", "", *_report(baselines["trigram"])))
    rows.append(("unigram", "", *_report(baselines["unigram"])))
    falls: dict[str, float] = {}
    for name, record in records.items():
        before, last = record["held_out_curve"][-2:]
        falls[name] = before["loss"] - last["loss"]
    least, most = min(falls, key=falls.__getitem__), max(falls, key=falls.__getitem__)
    return {
        "table": _table(("model", "parameters", "held-out nats a token", "held-out bits a byte"), rows),
        "last_steps": f"{falls[least]:.4f} nats, `{least}`, and {falls[most]:.4f}, `{most}`",
    }


STUDIES = (*GRID_STUDIES, "delimiters", "recall")
NOT_TESTED = "Not yet tested: no runs of a preset with a claim are on record."
CLAIMS = (
    ("Accuracy goes with ESS/kv, more than with TSS/kv (section 4.1)", "correlation"),
    ("Gated mixers leave states unused that linear attention fills (section 4.2)", "regimes"),
    ("A term that keeps decays near 1 repairs that", "regularisation"),
    ("The normalisation factor of S6 raises ESS at initialisation, and accuracy", "initialisation"),
    ("The ESS of a teacher tells what a smaller student loses", "distillation"),
    ("The ESS of its layers tells early which hybrid will be good", "hybrids"),
    ("ESS dips at delimiters in models that can forget (section 5)", "delimiters"),
    ("Models whose memory is modulated more recall better (section 5)", "recall"),
)
"""What the paper says, and the study that tests it."""


def results(folder: Path) -> dict[str, str]:
    """What is on record of each study, as Markdown."""
    return {name: _result(_record(folder, name)) for name in STUDIES}


def findings(folder: Path) -> dict[str, str]:
    """One row a claim of the paper; how often studies find what is not there; the sizes of the records."""
    rows: list[tuple[str, ...]] = []
    for claim, name in CLAIMS:
        record = _record(folder, name)
        if record is None:
            rows.append((claim, name, "", "", "not yet tested", ""))
            continue
        looks = _looks(record)
        units = "; ".join(look[2] for look in looks)
        effects = "; ".join(f"{look[0]} {look[1]}" for look in looks)
        link = f"`docs/results/{name}`"
        rows.append((claim, f"`{record['command']}`", units, effects, VERDICTS[record["holds"]], link))
    false = json.loads((folder / "false_positives.json").read_text("utf-8"))
    shown = [
        (row["study"], row["preset"] or "–", str(row["independent"]), str(row["cell_effects"]), row["found"])
        for row in false["designs"]
    ]
    draws = f"of {false['draws']:,}"
    head = ("study", "preset", f"independent cells, {draws}", f"cell effects, {draws}", "planted effect found")
    kept = [name for name in STUDIES if (folder / name).is_dir()]
    sizes = [(name, f"{sum(path.stat().st_size for path in (folder / name).iterdir()):,}") for name in kept]
    return {
        "table": _table(("the paper says", "what was run here", "units", "effect", "verdict", "record"), rows),
        "false_positives": _table(head, shown),
        "sizes": _table(("record", "bytes"), sizes),
    }


VERDICTS = {True: "holds", False: "fails", None: "cannot tell"}


def _record(folder: Path, study: str) -> dict[str, Any] | None:
    path = folder / study / "record.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _looks(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, effect with interval, units and adjusted p of each figure of the claim."""
    found: list[tuple[str, str, str, str]] = []
    figures = record["figures"]
    for key in figures:
        if key.startswith("claim_") and key.endswith("_units"):
            name = key.removeprefix("claim_").removesuffix("_units")
            value, interval = figures[f"claim_{name}"], figures[f"claim_{name}_interval"]
            ends = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
            effect = "–" if value is None else f"{value:.2f}{ends}"
            found.append((f"`{name}`", effect, f"{figures[key]:.0f}", f"{figures[f'claim_{name}_p']:.2g}"))
    return found


def _result(record: Mapping[str, Any] | None) -> str:
    """A record as Markdown: its claim and verdict, how it was made, and what it says."""
    if record is None:
        return NOT_TESTED
    said = [f"- {statement}" for statement in record["statements"]]
    made = f"Made by `{record['command']}` ({record['versions']}{_runs(record)})."
    return "\n".join([f"**{record['claim']}** Verdict: **{VERDICTS[record['holds']]}**.", "", *said, "", made])


def _runs(record: Mapping[str, Any]) -> str:
    if "seeds" not in record:
        return ""
    seeds, fixed = ", ".join(map(str, record["seeds"])), record["commit"][:10]
    return f"; {record['done']} of {record['total']} runs, seeds {seeds}, fixed by commit {fixed}"


def _numbers(document: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: f"{document[name]:,}" for name in names}


def _verdicts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in found.items())


def _report(report: Mapping[str, float]) -> tuple[str, str]:
    return f"{report['loss']:.3f}", f"{report['bits_per_byte']:.3f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
