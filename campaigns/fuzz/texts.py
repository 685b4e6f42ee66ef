"""Random calls of what works on text, names and paths; nothing is written where the process runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

import statesize as ss
from campaigns.fuzz.arguments import whole
from campaigns.fuzz.call import Call
from campaigns.fuzz.hostile import Source
from campaigns.fuzz.models import model
from statesize.lab import mixers, tasks
from statesize.lab.studies.regimes import Regimes
from statesize.lab.tasks.text import byte_count
from statesize.texts.rows import read_documents

_TEXTS: tuple[Any, ...] = (
    "", "\0", "é" * 40, "\ud800", "a state, a state", "../x", "[", "name = 3", "a = [", "[[", "= 1", "[x]\ny = nan",
    "<eos>", "\n\n\n", "𝄞" * 9, "name = 1\n[[task]]",
)  # fmt: skip


@cache
def tokenizer() -> Tokenizer:
    """That of the bundled models."""
    return ss.lab.zoo.tokenizer()


def _documents(source: Source) -> tuple[Any, bool]:
    good = ["a state, a state", "another é\n\nstate"][: source.whole(1, 2)]
    bad = [None, 3, "one text", [3], [None, "x"], b"x", ["a", "\ud800"], {1: "a"}, object(), float("nan"), [b"x"], True]
    return (good, True) if source.maybe(0.4) else (source.chance.choice(bad), False)


def text_call(source: Source) -> Call:
    """Tokenizers, streams of tokens, the task over them, settings of studies."""
    documents, good = _documents(source)
    value = source.chance.choice(_TEXTS) if source.maybe(0.6) else source.no_number()
    size = source.no_number() if source.maybe(0.5) else 300
    length = source.no_number() if source.maybe(0.5) else 3
    stream = torch.arange(12) % 5
    tokens = source.chance.choice(
        (stream, stream, stream.double(), stream[None], stream - 9, None, [1, 2], torch.tensor([]))
    )
    kinds: dict[str, tuple[Callable[[], Any], bool, tuple[str, ...]]] = {
        "train_tokenizer": (
            lambda: tasks.train_tokenizer(documents, size).get_vocab_size(),
            good and type(size) is int and 257 <= size < 10**6,
            ("documents", "vocabulary_size"),
        ),
        "encode": (lambda: tasks.encode(documents, tokenizer()), good, ("documents", "text")),
        "encode by": (lambda: tasks.encode(["a b"], value), False, ("tokenizer",)),
        "byte_count": (lambda: byte_count(documents), good, ("documents",)),
        "TextTask": (
            lambda: tasks.TextTask(tokens, stream, length, 9, 5),
            tokens is stream and whole(length, 1, 11),
            ("train_tokens", "length"),
        ),
        "Corpus": (lambda: tasks.Corpus(documents, documents).sha256, good, ("train", "held_out", "documents")),
        "a preset": (lambda: Regimes().preset(value), False, ("preset",)),
    }
    kind = source.chance.choice(list(kinds))
    run, fine, names = kinds[kind]
    about = f"{kind} {documents!r:.40} {value!r:.40} {size!r:.40} {length!r:.40}"
    return Call(run, lambda found: [] if found is not None else ["None"], "maybe" if fine else "always", names, about)


def path_call(source: Source) -> Call:
    """What reads and writes files, by paths that are none or where nothing is."""
    value = (
        source.chance.choice((*_TEXTS, "x" * 300, "no/such/file.txt", Path("none")))
        if source.maybe(0.6)
        else source.no_number()
    )
    names = ("path", "folder", "model", "profile", "name", "delimiter", "dtype", "extra", "study", "settings", "file")
    kinds: dict[str, Callable[[Path], Any]] = {
        "zoo.load": lambda _: ss.lab.zoo.load(value),
        "zoo.record": lambda _: ss.lab.zoo.record(value),
        "zoo": lambda _: (
            ss.lab.zoo.names(),
            ss.lab.zoo.recall_names(),
            ss.lab.zoo.documents(),
            ss.lab.zoo.tokenizer(),
        ),
        "Profile.load": lambda _: ss.Profile.load(value),
        "load_checkpoint": lambda _: mixers.load_checkpoint(value),
        "read_text": lambda _: tasks.read_text(value),
        "read_documents": lambda _: read_documents(value),
        "save_checkpoint": lambda folder: mixers.save_checkpoint(model("la"), folder / "model", value),
        "save_checkpoint to": lambda folder: mixers.save_checkpoint(model("la"), _below(folder, value)),
        "a folder": lambda folder: read_documents(folder),
    }
    kind = source.chance.choice(list(kinds))

    def run() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return kinds[kind](Path(folder))

    refusal = "never" if kind == "zoo" else "maybe" if kind.startswith("save_checkpoint") else "always"
    shown = (str(value)[:60],) if isinstance(value, str | Path) and str(value) not in {"", "."} else ()
    return Call(run, lambda _: [], refusal, (*names, *shown), f"{kind} {value!r:.60}")


def _below(folder: Path, value: Any) -> Any:
    return (
        f"{folder}/{value}"
        if isinstance(value, str) and ".." not in value
        else value
        if not isinstance(value, str | Path)
        else folder
    )
