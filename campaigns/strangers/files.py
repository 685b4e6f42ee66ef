"""Files of every kind, changed at random by somebody who knows the format and signs them anew."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import resource
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from campaigns.faults.jobs import GRID, StudyJob
from statesize.cli import main
from statesize.lab.studies.grid.table import ResultTable
from statesize.lab.zoo import load
from statesize.profiling import profile
from statesize.results import store

MEMORY = 3 * 2**30
"""Bytes that reading a small file may take at most, beside what the process has."""

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**53, 10**30, 1e308, "", "x", "\x1b[2J", "\u202e", "../../x", "load", "float64"),
    *([], {}, [[]], {"x": {}}, [None], "x" * 5000, "<script>", [1, 2, 3], {"url": "http://127.0.0.1/"}),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is made, how a stranger changes it, and which commands read it."""

    name: str
    make: Callable[[Path], object]
    change: Callable[[Path, random.Random], object]
    commands: tuple[tuple[str, ...], ...]


def read(kind: Kind, original: Path, scratch: Path, chance: random.Random) -> tuple[str, str]:
    """Change a copy of what was made and read it by a command; the command, and what is wrong, if anything is."""
    place = scratch / "given"
    shutil.copytree(original, place)
    kind.change(place, chance)
    command = chance.choice(kind.commands)
    words = [word.replace("PLACE", str(place)).replace("OUT", str(scratch / "out")) for word in command]
    problem = _problem(words)
    for path in (place, scratch / "out", scratch / "out.units"):
        shutil.rmtree(path, ignore_errors=True)
    return " ".join(command), problem


def _problem(words: list[str]) -> str:
    """What is wrong with how a command ends."""
    printed, told = io.StringIO(), io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
            code = main(words)
    except BaseException:
        return traceback.format_exc(limit=-3)
    errors = [line for line in told.getvalue().splitlines() if line.startswith("statesize: error: ")]
    if code not in {0, 1, 2} or (code and len(errors) != 1) or "Traceback" in told.getvalue():
        return f"exit code {code}: {told.getvalue()[-600:]}"
    if any(sign in printed.getvalue() + told.getvalue() for sign in "\x1b\x9b\u202e\x07"):
        return "control characters reach the terminal"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return f"{grown:,} bytes were taken" if grown > MEMORY else ""


def _make_profile(folder: Path) -> None:
    model, tokenizer = load("gla")
    profile(model, "A small text.", tokenizer=tokenizer, name="gla", positions=3).save(folder / "profile")


def _change_profile(folder: Path, chance: random.Random) -> None:
    path = folder / "profile"
    marker = json.loads((path / store.MARKER).read_text(encoding="utf-8"))
    for _ in range(chance.choice((1, 1, 2))):
        if chance.random() < 0.3:
            index = chance.randrange(len(marker["nodes"]))
            file = path / f"{index:05d}.safetensors"
            flip(file, chance)
            marker["nodes"][index]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            alter(marker["nodes"], chance)
    content = {name: value for name, value in marker.items() if name != "sha256"}
    signed = content | {"sha256": store._sha256(content)}  # pyright: ignore[reportPrivateUsage]
    (path / store.MARKER).write_text(json.dumps(signed, ensure_ascii=False), encoding="utf-8")


def alter(values: Any, chance: random.Random) -> None:
    """Put something else in the place of one value of JSON, at any depth, or take it out."""
    while values:
        names: list[Any] = list(cast("dict[str, Any]", values) if isinstance(values, dict) else range(len(values)))
        key = chance.choice(names)
        if isinstance(values[key], dict | list) and values[key] and chance.random() < 0.8:
            values = cast("Any", values[key])
            continue
        if chance.random() < 0.15:
            del values[key]
        else:
            values[key] = chance.choice(_VALUES)
        return


def flip(path: Path, chance: random.Random) -> None:
    """Change some bytes of a file, cut it off, or repeat a part of it."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 30))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    if chance.random() < 0.2:
        content = content[: chance.randrange(1, len(content))]
    path.write_bytes(content)


def _make_texts(folder: Path) -> None:
    rows = {"text": ["A small text of some words.", "Another one of them."] * 20}
    pd.DataFrame(rows).to_parquet(folder / "corpus.parquet", compression="zstd")


def _make_grid(folder: Path) -> None:
    (folder / "grid.toml").write_text(GRID.replace("STEPS", "2"), encoding="utf-8")


def _change_grid(folder: Path, chance: random.Random) -> None:
    path = folder / "grid.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    for _ in range(chance.choice((1, 2, 4))):
        place = chance.randrange(len(lines))
        if chance.random() < 0.2:
            lines[place] = lines[chance.randrange(len(lines))]
            continue
        value = json.dumps(chance.choice(_VALUES)).replace("null", "nan")
        lines[place] = lines[place].partition("=")[0] + f"= {value}"
    path.write_text("\n".join(lines), encoding="utf-8")


def _make_study(folder: Path) -> None:
    job = StudyJob("study", 1)
    (folder / "inputs").mkdir()
    job.write_inputs(folder / "inputs", 0)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if main(job.arguments(folder)) != 0:
            raise RuntimeError("the study failed")


def _change_study(folder: Path, chance: random.Random) -> None:
    if chance.random() < 0.5:
        path = folder / "output" / "conclusion.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        alter(values, chance)
        path.write_text(json.dumps(values), encoding="utf-8")
        return
    path = folder / "output" / "table.parquet"
    if chance.random() < 0.3:
        flip(path, chance)
        return
    rows = cast("list[dict[str, Any]]", pd.read_parquet(path).to_dict(orient="records"))
    name = chance.choice(list(rows[0]))
    value = chance.choice([value for value in _VALUES if not isinstance(value, dict | list | int)])
    for row in rows:
        row[name] = value
    with contextlib.suppress(Exception):
        ResultTable(folder / "output").write(rows)


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "profile",
            _make_profile,
            _change_profile,
            (
                ("profile", "PLACE/profile", "--html", "OUT", "--json"),
                ("compare", "PLACE/profile", "PLACE/profile"),
                ("compare", "PLACE/profile", "PLACE/profile", "--json"),
            ),
        ),
        Kind(
            "Parquet",
            _make_texts,
            lambda folder, chance: flip(folder / "corpus.parquet", chance),
            (("profile", "gla", "--parquet", "PLACE/corpus.parquet", "--plan", "--sequences", "1"),),
        ),
        Kind(
            "TOML",
            _make_grid,
            _change_grid,
            (("study", "regimes", "--config", "PLACE/grid.toml", "--output", "OUT", "--dry-run"),),
        ),
        Kind("study", _make_study, _change_study, (("study", "PLACE/output", "--html", "OUT", "--json"),)),
    )
}
"""By name."""
