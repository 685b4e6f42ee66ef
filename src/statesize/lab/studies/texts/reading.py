"""Runs of studies that measure trained models on a text: one model under one condition, and what it reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from torch import nn

from statesize.check import refuse, require_count, require_kind
from statesize.errors import FileError, InputError
from statesize.io.files import digest
from statesize.io.text import printable
from statesize.lab import zoo
from statesize.lab.stored import file_sha256, stored_sha256
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import CLAIM_METRIC, measure_dips
from statesize.lab.studies.texts.documents import DocumentCorpus, default_texts, make_corpus, read_texts
from statesize.lab.studies.texts.responses import METRICS, RELATIVE_TOLERANCE, TOLERANCE
from statesize.lab.studies.texts.sequences import Windows, choose_windows
from statesize.models.hub import commit
from statesize.models.load import load_model, load_tokenizer, model_facts
from statesize.texts.inputs import tokens_sha256

SCHEMA = 2
"""Version of the rows of a run; it is part of a run's key."""

_LOGGER = logging.getLogger("statesize")


@dataclass(frozen=True)
class Reading:
    """What models read, and how they are measured: the table [reading].

    Attributes:
        text: UTF-8 text file whose blank lines separate documents, or a .jsonl or .parquet file with a text or a chat
            in each line or row. None: the bundled documents, and those of re-binding recall for models that learnt it.
        field: Field of the JSON objects, or column of the Parquet file, that holds the text.
        special_tokens: Read special tokens that the texts spell, such as <|im_end|>, as tokens and not as letters.
            Delimiters then cut a text file into documents, and blank lines do not.
        delimiter: The token between documents: eos; turn, the end of a turn of chat; stop or newline, which cut the
            documents into sentences or lines; or the text of any token.
        documents: Read at most this many documents.
        window: Measure ESS over this many tokens of past and future. None: as many as fit into half of the documents,
            at most 32.
        length: Tokens of the sequences that are predicted, in the study of recall. None: 256, or as the recall models
            were trained.
        channels: Measure at most this many heads or channels of each layer.
        seed: Seed of the controls and of the intervals.
        revision: Branch, tag or commit of models of the hub.
        device: Where models run.
        dtype: Dtype of the weights and of the run. None: as stored.

    Raises:
        InputError: A value does not fit.
    """

    text: str | None = None
    field: str = "text"
    special_tokens: bool = False
    delimiter: str = "eos"
    documents: int = 200
    window: int | None = None
    length: int | None = None
    channels: int = 16
    seed: int = 0
    revision: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None

    def __post_init__(self) -> None:
        for name in ("text", "field", "delimiter", "revision", "device", "dtype"):
            if getattr(self, name) is not None:
                require_kind(name, getattr(self, name), str, "text")
        require_kind("special_tokens", self.special_tokens, bool, "true or false")
        for name, least in (("documents", 2), ("channels", 1), ("seed", 0), ("window", 1), ("length", 2)):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), least=least, plain=True)


@dataclass(frozen=True)
class TextRun:
    """One model on one text, under one condition.

    Attributes:
        model: A bundled name, a folder, or an id of the Hugging Face hub.
        name: What tables call it.
        reading: What it reads.
        windows: Past and future of each H_i.
        condition: How the text is changed, one of `CONDITIONS`.
    """

    model: str
    name: str
    reading: Reading
    windows: Windows
    condition: str

    @property
    def label(self) -> str:
        """The run in a few words, for lines of progress."""
        return f"{self.name}, {self.condition}"

    @property
    def metric(self) -> str:
        """The column of the ESS for which claims are made."""
        return CLAIM_METRIC

    @cached_property
    def key(self) -> str:
        """A digest of the model's weights, its tokens and all else that the rows depend on; the model is loaded."""
        corpus = self.corpus()
        facts = {
            "schema": SCHEMA,
            **model_facts(self.load()),
            "documents": tokens_sha256(list(corpus.documents)),
            "delimiter": [corpus.delimiter, corpus.beginning, sorted(corpus.special)],
            "windows": asdict(self.windows),
            "condition": self.condition,
            "measured": [self.reading.length, self.reading.channels, self.reading.seed, self.name],
            "tolerances": [*METRICS, TOLERANCE, RELATIVE_TOLERANCE],
        }
        return digest(json.dumps(facts, sort_keys=True, default=repr).encode())

    @cached_property
    def content(self) -> tuple[str, str]:
        """What model and text are known by, as they are when it is first asked for."""
        return _content(self.model, self.reading)

    def load(self) -> nn.Module:
        """The model."""
        return _model(self.model, self.reading, self.content)

    def corpus(self) -> DocumentCorpus:
        """What it reads."""
        return _corpus(self.model, self.reading, self.content)

    def dips(self) -> Iterator[Row]:
        """The rows of its dips at delimiters."""
        reading, conditions = self.reading, (self.condition,)
        named = {"model": self.name, "delimiter": reading.delimiter, **asdict(self.windows)}
        for dip in measure_dips(self.load(), self.corpus(), self.windows, reading.channels, reading.seed, conditions):
            yield {**named, **vars(dip)}


def _content(model: str, reading: Reading) -> tuple[str, str]:
    """Digests of the files of a model and of a text; the commit of a model of the hub, and "" for bundled documents."""
    text = "" if reading.text is None or not Path(reading.text).is_file() else file_sha256(Path(reading.text))
    return stored_sha256(model) or commit(model, reading.revision or "main"), text


def _require_unchanged(model: str, reading: Reading, content: tuple[str, str]) -> None:
    # What is known of a model of the hub changes when it is loaded for the first time.
    for name, before, now in zip((model, reading.text), content, _content(model, reading), strict=True):
        if before != now and Path(str(name)).exists():
            raise FileError(f"{name} must stay the same while it is read, got other content. Run the command again.")


# The runs of a model follow each other in a process.
@lru_cache(maxsize=1)
def _model(model: str, reading: Reading, content: tuple[str, str]) -> nn.Module:
    loaded = load_model(model, device=reading.device, dtype=reading.dtype, revision=reading.revision).model
    _require_unchanged(model, reading, content)
    return loaded


@lru_cache(maxsize=1)
def _corpus(model: str, reading: Reading, content: tuple[str, str]) -> DocumentCorpus:
    special = reading.special_tokens
    problems = list[str]()
    try:
        if reading.text is None:
            texts = default_texts(model)
        else:
            texts = read_texts(
                Path(reading.text), reading.documents, problems.append, reading.field, special_tokens=special
            )
        tokenizer = load_tokenizer(model, revision=reading.revision)
        corpus = make_corpus(texts, tokenizer, reading.delimiter, special_tokens=special, note=problems.append)
    except InputError as error:
        raise InputError(f"{model}: {error}") from error
    _require_unchanged(model, reading, content)
    for problem in problems:
        _LOGGER.warning("Left out %s", printable(problem))
    return corpus.shortened(reading.documents)


@dataclass(frozen=True)
class TextGrid:
    """The runs of a study of texts.

    Attributes:
        reading: What models read.
        models: Their names, each of them once; by default the bundled models of re-binding recall.
        claim: The claim that was fixed before the runs.
    """

    reading: Reading = Reading()
    models: tuple[str, ...] = field(default_factory=lambda: tuple(zoo.recall_names()))
    claim: Claim | None = None


def text_runs(grid: TextGrid, conditions: Sequence[str]) -> tuple[TextRun, ...]:
    """The runs of a grid under some conditions."""
    models, reading = grid.models, grid.reading
    if not models or len(set(models)) < len(models):
        refuse("models", "names, each of them once", models)
    # Windows that fit into the documents of all models, so that these can be compared.
    windows = min(
        (choose_windows(_corpus(model, reading, _content(model, reading)), reading.window) for model in models),
        key=lambda one: one.past,
    )
    names = {model: Path(model).absolute().name if Path(model).is_dir() else model for model in models}
    if len(set(names.values())) < len(models):
        names = {model: model for model in models}
    return tuple(
        TextRun(model, names[model], reading, windows, condition) for model in models for condition in conditions
    )
