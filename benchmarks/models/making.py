"""Measures a model and writes its record: three lengths, and untrained weights beside them."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

import statesize as ss
from benchmarks.cases import made
from statesize.adapters.models.model_state import tensors_sha256
from statesize.check import refuse
from statesize.io.files import replace_file
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import at_middle, ess_values, keeps_everything, known_mean, middle_ceiling
from statesize.texts import bundled
from statesize.texts.inputs import begun_excerpts
from statesize.texts.tokens import AnyTokenizer, encode

RESULTS = Path(__file__).parents[2] / "results" / "models"
LENGTHS, SEQUENCES = (64, 256, 512), 4
SCHEMA = 1
SPREAD = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Quantiles over heads or channels."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that goes on record.

    Attributes:
        file: Name of the record.
        name: What tables call the model.
        package: Where the weights come from.
        licence: That which the package states.
        check: What shows that the conversion is right.
        data: What is read, in its unit, such as "tokens of prose".
        untrained: The same model with weights as before training.
        inputs: What it reads at a length.
        files: The files of the weights.
        layers: The mixers that are measured; None for all.
    """

    file: str
    name: str
    package: str
    licence: str
    check: str
    data: str
    model: nn.Module
    untrained: nn.Module
    inputs: Callable[[int], Any]
    files: Sequence[Path] = ()
    lengths: Sequence[int] = LENGTHS
    axis: int | None = None
    layers: Sequence[str] | None = None


def put_on_record(subject: Subject) -> None:
    """Measure a model and write its record."""
    torch.set_num_threads(1)
    start = time.process_time()
    trained = [_profile(subject, subject.model, length) for length in subject.lengths]
    fresh = [_profile(subject, subject.untrained, length) for length in subject.lengths]
    whole = record(trained[-1], subject.data, tensors_sha256(subject.model.state_dict())) | {
        "package": subject.package,
        "licence": subject.licence,
        "check": subject.check,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in subject.files},
        "lengths": [length_row(one) for one in trained],
        "untrained": [{key: value for key, value in length_row(one).items() if key != "layers"} for one in fresh],
        "seconds": round(time.process_time() - start),
        "made": made("transformers") | {"command": _command()},
    }
    replace_file(RESULTS / f"{subject.file}.json", written(whole))
    for row, other in zip(whole["lengths"], whole["untrained"], strict=True):
        print({key: row[key] for key in ("length", "ess", "ess_without_sinks", "of", "norm")}, other["ess"])
    print(subject.check, whole["seconds"], "s")


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


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _command() -> str:
    """What the program was called with, wherever its files lie."""
    given = [Path(one) for one in sys.argv[1:]]
    names = ["FOLDER" if path.is_dir() else path.name for path in given]
    return shlex.join(["python", *sys.orig_argv[1:3], *names])


def _profile(subject: Subject, model: nn.Module, length: int) -> ss.Profile:
    print(subject.name, length, f"{time.process_time():.0f} s", flush=True)
    return ss.profile(
        model,
        subject.inputs(length),
        axis=subject.axis,
        layers=subject.layers,
        positions=[length // 2],
        relative_tolerances=(),
        name=subject.name,
        on_progress=lambda progress: None,
    )


def require(right: bool, fault: str) -> None:
    """Stop before anything wrong goes on record."""
    if not right:
        raise SystemExit(f"The conversion is wrong: {fault}.")


def prose(tokenizer: AnyTokenizer, length: int, pieces: int = SEQUENCES) -> list[Tensor]:
    """The beginnings of the first bundled documents, as the model reads texts."""
    documents = [torch.tensor(encode(tokenizer, text)) for text in bundled.documents()[:pieces]]
    return [piece for ids in documents for piece in begun_excerpts([ids[: length + 1]], length, 1, tokenizer)]


@torch.inference_mode()
def loss(model: Any, pieces: Sequence[Tensor] | Tensor) -> float:
    """Cross-entropy of a language model, nats per token."""
    logits = [model(ids[None]) for ids in pieces]
    logits = [getattr(one, "logits", one)[0, :-1].float() for one in logits]
    return float(functional.cross_entropy(torch.cat(logits), torch.cat([ids[1:] for ids in pieces])))


@contextmanager
def joined(parts: Sequence[Path], name: str) -> Iterator[tuple[Path, str]]:
    """One file of parts, for as long as it is read, and its digest."""
    content = b"".join(part.read_bytes() for part in parts)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path, hashlib.sha256(content).hexdigest()


def of_config(model: Any) -> nn.Module:
    """A model of transformers as it is before training."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(model.config).float().eval()


def language_model(file: str, name: str, path: Path, package: str, licence: str, *, checked: str = "") -> None:
    """Put a GGUF file of a language model on record."""
    from statesize.models.load import load_model

    loaded = load_model(str(path))
    untrained, pieces = of_config(loaded.model), prose(loaded.tokenizer, 256)
    check = (
        f"{checked}{loss(loaded.model, pieces):.2f} nats per token over the 256 tokens of the record, "
        f"{loss(untrained, pieces):.2f} with untrained weights"
    )
    put_on_record(
        Subject(
            file, name, package, licence, check, "tokens of prose", loaded.model, untrained,
            lambda length: prose(loaded.tokenizer, length, SEQUENCES // (1 + (length == LENGTHS[-1]))), [path],
        )
    )  # fmt: skip
