"""Runs of the study of delimiters: one model, which may be trained first, and what it reads."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from statesize.check import refuse
from statesize.errors import InputError
from statesize.io.files import digest
from statesize.lab import zoo
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.studies.engine.table import Row, versions
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import METRICS, RECALLED, RELATIVE_TOLERANCE, TOLERANCES, measure_dips, perplexity
from statesize.lab.studies.texts.documents import (
    CONDITIONS,
    DocumentCorpus,
    Windows,
    choose_windows,
    default_texts,
    make_corpus,
    rebinding_task,
)
from statesize.lab.tasks.base import build_task
from statesize.lab.training.config import TrainingConfig
from statesize.lab.training.loop import train
from statesize.models.load import load_model, load_tokenizer, model_facts
from statesize.texts.documents import read_file
from statesize.texts.inputs import tokens_sha256

SCHEMA = 6
"""Version of the rows of a run; it is part of a run's key."""

_LENGTH = 256


@dataclass(frozen=True)
class TextGrid:
    """The runs of the study of delimiters.

    Attributes:
        documents: Models read at most this many documents.
        models: Their names, each of them once; by default the bundled models of re-binding recall.
        claim: The claim that was fixed before the runs.
        text: UTF-8 text file whose blank lines separate documents, or a .jsonl or .parquet file with a text or a chat
            in each line or row. None: the bundled documents, and those of re-binding recall for models that learnt it.
    """

    documents: int = 100
    models: tuple[str, ...] = field(default_factory=zoo.recall_names)
    claim: Claim | None = None
    text: str | None = None


@dataclass(frozen=True)
class TextRun:
    """One model on one text.

    Attributes:
        model: A bundled name, a folder, or an id of the Hugging Face hub; or the name of a bundled model of re-binding
            recall and a seed, such as "recall-gla-200", which is trained as the bundled one was.
        grid: What it reads.
        windows: Past and future of each H_i.
    """

    model: str
    grid: TextGrid
    windows: Windows

    @property
    def label(self) -> str:
        """Name of the model in tables: that of a folder is its last part."""
        return Path(self.model).absolute().name if Path(self.model).is_dir() else self.model

    @cached_property
    def source(self) -> tuple[str, int | None]:
        """The bundled model of re-binding recall as whose sibling it is trained, and its seed; else its own name."""
        found = re.fullmatch(r"(.+)-(\d+)", self.model)
        return (found[1], int(found[2])) if found and found[1] in zoo.recall_names() else (self.model, None)

    @cached_property
    def key(self) -> str:
        """A digest of the weights or how they are trained, of the tokens, and of all else that rows depend on."""
        corpus, (name, seed) = self.corpus, self.source
        bundled = name in zoo.recall_names()
        facts = {
            "schema": SCHEMA,
            **({"trained": [zoo.record(name)["training"], name, seed]} if bundled else model_facts(self.load())),
            "documents": tokens_sha256(list(corpus.documents)),
            "delimiter": [corpus.delimiter, corpus.beginning, sorted(corpus.special)],
            "windows": asdict(self.windows),
            "measured": [self.label, CONDITIONS, METRICS, TOLERANCES, RELATIVE_TOLERANCE],
        }
        return digest(json.dumps(facts, sort_keys=True, default=repr).encode())

    @cached_property
    def corpus(self) -> DocumentCorpus:
        """Texts that it reads; an InputError names the model."""
        name, text = self.source[0], self.grid.text
        texts = default_texts(name) if text is None else read_file(Path(text))
        try:
            return make_corpus(texts, load_tokenizer(name)[0], self.grid.documents)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def load(self) -> nn.Module:
        """The model, trained where its name has a seed."""
        name, seed = self.source
        return load_model(name).model if seed is None else train_recall(name, seed)

    def rows(self) -> Iterator[Row]:
        """The rows of the dips of the model, each with its perplexity on repeated bigrams."""
        model, (name, seed) = self.load(), self.source
        task = rebinding_task(name)
        answers = None if task is None else frozenset(range(task.keys, task.none + 1))
        dips = list(measure_dips(model, self.corpus, self.windows))
        recalled = perplexity(model, self.corpus, _LENGTH if task is None else task.length, answers)
        known: Row = {"run": self.key, "model": self.label, **({} if seed is None else {"seed": seed})}
        for dip in dips:
            yield {**known, **asdict(self.windows), RECALLED: recalled, **dip, "versions": versions()}


def train_recall(name: str, seed: int) -> LanguageModel:
    """A model of re-binding recall that is trained and rounded to float16 as the bundled one was, with another seed."""
    record = zoo.record(name)
    known = {field: record["training"][field] for field in TrainingConfig().to_dict()}
    model = LanguageModel(zoo.load(name)[0].config, torch.Generator().manual_seed(seed))
    deque(train(model, build_task(record["task"]), TrainingConfig(**known | {"seed": seed})), maxlen=0)  # pyright: ignore[reportArgumentType]
    return model.half().float().eval()


def text_runs(grid: TextGrid) -> tuple[TextRun, ...]:
    """The runs of a grid."""
    runs = [TextRun(model, grid, Windows(1, 1)) for model in grid.models]
    if not runs or len({run.label for run in runs}) < len(runs):
        refuse("models", "names, each of them once", grid.models)
    # Windows that fit into the documents of all models, so that these can be compared.
    smallest = min((choose_windows(run.corpus) for run in runs), key=lambda windows: windows.past)
    return tuple(replace(run, windows=smallest) for run in runs)
