"""Runs of the study of delimiters: one model, which may be trained first, and what it reads."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.check import refuse, require_count, require_kind
from statesize.errors import InputError
from statesize.io.files import digest
from statesize.lab import zoo
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import CLAIM_METRIC, measure_dips
from statesize.lab.studies.texts.documents import DocumentCorpus, default_texts, make_corpus, rebinding_task
from statesize.lab.studies.texts.recall import perplexities
from statesize.lab.studies.texts.responses import METRICS, RELATIVE_TOLERANCE, TOLERANCE
from statesize.lab.studies.texts.sequences import CONDITIONS, Windows, choose_windows
from statesize.lab.tasks.base import build_task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train
from statesize.models.load import load_model, load_tokenizer, model_facts
from statesize.texts.documents import read_file
from statesize.texts.inputs import tokens_sha256

SCHEMA = 4
"""Version of the rows of a run; it is part of a run's key."""

_LENGTH = 256


@dataclass(frozen=True)
class Reading:
    """What models read, and how they are measured.

    Attributes:
        text: UTF-8 text file whose blank lines separate documents, or a .jsonl or .parquet file with a text or a chat
            in each line or row. None: the bundled documents, and those of re-binding recall for models that learnt it.
        delimiter: The token between documents: eos, or the text of any token, such as "." or "<|im_end|>".
        documents: Read at most this many documents.
        window: Measure ESS over this many tokens of past and future. None: as many as fit into half of the documents,
            at most 32.
        channels: Measure at most this many heads or channels of each layer.
        seed: Seed of the controls and of the intervals.

    Raises:
        InputError: A value does not fit.
    """

    text: str | None = None
    delimiter: str = "eos"
    documents: int = 200
    window: int | None = None
    channels: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("text", "delimiter"):
            if getattr(self, name) is not None:
                require_kind(name, getattr(self, name), str, "text")
        for name, least in (("documents", 2), ("channels", 1), ("seed", 0), ("window", 1)):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), least=least, plain=True)

    def corpus(self, model: str) -> DocumentCorpus:
        """What a model reads, by its name; an InputError names the model."""
        texts = default_texts(model) if self.text is None else read_file(Path(self.text))
        try:
            return make_corpus(texts, load_tokenizer(model), self.delimiter, self.documents)
        except InputError as error:
            raise InputError(f"{model}: {error}") from error


@dataclass(frozen=True)
class TextRun:
    """One model on one text.

    Attributes:
        model: A bundled name, a folder, or an id of the Hugging Face hub; or the name of a bundled model of re-binding
            recall and a seed, such as "recall-gla-200", which is trained as the bundled one was.
        label: What tables call it.
        reading: What it reads.
        windows: Past and future of each H_i.
    """

    model: str
    label: str
    reading: Reading
    windows: Windows
    metric = CLAIM_METRIC
    """The column of the ESS for which claims are made."""

    @cached_property
    def source(self) -> tuple[str, int | None]:
        """The bundled model of re-binding recall as whose sibling it is trained, and its seed; else its own name."""
        found = re.fullmatch(r"(.+)-(\d+)", self.model)
        return (found[1], int(found[2])) if found and found[1] in zoo.recall_names() else (self.model, None)

    @cached_property
    def key(self) -> str:
        """A digest of the weights or how they are trained, of the tokens, and of all else that rows depend on."""
        corpus, (name, seed) = self.corpus, self.source
        facts = {
            "schema": SCHEMA,
            **(model_facts(self.load()) if seed is None else {"trained": [zoo.record(name)["training"], name, seed]}),
            "documents": tokens_sha256(list(corpus.documents)),
            "delimiter": [corpus.delimiter, corpus.beginning, sorted(corpus.special)],
            "windows": asdict(self.windows),
            "conditions": CONDITIONS,
            "measured": [self.reading.channels, self.reading.seed, self.label],
            "tolerances": [*METRICS, TOLERANCE, RELATIVE_TOLERANCE],
        }
        return digest(json.dumps(facts, sort_keys=True, default=repr).encode())

    @cached_property
    def corpus(self) -> DocumentCorpus:
        """What it reads."""
        return self.reading.corpus(self.source[0])

    def load(self) -> nn.Module:
        """The model, trained where its name has a seed."""
        name, seed = self.source
        return load_model(name).model if seed is None else train_recall(name, seed)

    def rows(self) -> Iterator[Row]:
        """The rows of the dips of the model, each with its perplexities on repeated bigrams."""
        model, task = self.load(), rebinding_task(self.source[0])
        answers = None if task is None else frozenset(range(task.keys, task.none + 1))
        recalled = perplexities(model, self.corpus, _LENGTH if task is None else task.length, answers)
        named = {"model": self.label, "delimiter": self.reading.delimiter, **asdict(self.windows), **recalled}
        for dip in measure_dips(model, self.corpus, self.windows, self.reading.channels, self.reading.seed):
            yield {**named, **vars(dip)}


def train_recall(name: str, seed: int) -> LanguageModel:
    """A model of re-binding recall that is trained and rounded to float16 as the bundled one was, with another seed."""
    record = zoo.record(name)
    known: dict[str, Any] = {name: record["training"][name] for name in TrainingConfig().to_dict()}
    known["seed"] = seed
    config = TrainingConfig(**known)
    model = LanguageModel(zoo.load(name)[0].config, torch.Generator().manual_seed(seed))
    deque(train(model, build_task(record["task"]), config), maxlen=0)  # pyright: ignore[reportArgumentType]
    return model.half().float().eval()


@dataclass(frozen=True)
class TextGrid:
    """The runs of the study of delimiters.

    Attributes:
        reading: What models read.
        models: Their names, each of them once; by default the bundled models of re-binding recall.
        claim: The claim that was fixed before the runs.
    """

    reading: Reading = Reading()
    models: tuple[str, ...] = field(default_factory=lambda: tuple(zoo.recall_names()))
    claim: Claim | None = None


def text_runs(grid: TextGrid) -> tuple[TextRun, ...]:
    """The runs of a grid."""
    models, reading = grid.models, grid.reading
    if not models or len(set(models)) < len(models):
        refuse("models", "names, each of them once", models)
    labels = [Path(model).absolute().name if Path(model).is_dir() else model for model in models]
    labels = labels if len(set(labels)) == len(models) else models
    runs = [TextRun(model, label, reading, Windows(1, 1)) for model, label in zip(models, labels, strict=True)]
    # Windows that fit into the documents of all models, so that these can be compared.
    fitting = [choose_windows(run.corpus, reading.window) for run in runs]
    return tuple(replace(run, windows=min(fitting, key=lambda window: window.past)) for run in runs)
