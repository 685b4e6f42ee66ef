"""Runs of studies that measure trained models on a text: one model, and what it reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import nn

from statesize.check import refuse, require_count, require_kind
from statesize.errors import InputError
from statesize.io.files import digest
from statesize.io.text import printable
from statesize.lab import zoo
from statesize.lab.studies.engine.table import Row
from statesize.lab.studies.engine.verdicts import Claim
from statesize.lab.studies.texts.dips import CLAIM_METRIC, measure_dips
from statesize.lab.studies.texts.documents import DocumentCorpus, default_texts, make_corpus, read_texts
from statesize.lab.studies.texts.responses import METRICS, RELATIVE_TOLERANCE, TOLERANCE
from statesize.lab.studies.texts.sequences import Windows, choose_windows
from statesize.models.load import load_model, load_tokenizer, model_facts
from statesize.texts.inputs import tokens_sha256

SCHEMA = 3
"""Version of the rows of a run; it is part of a run's key."""

_LOGGER = logging.getLogger("statesize")


@dataclass(frozen=True)
class Reading:
    """What models read, and how they are measured.

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

    def corpus(self, model: str) -> DocumentCorpus:
        """What a model reads, by its name; an InputError names the model."""
        problems = list[str]()
        try:
            if self.text is None:
                texts = default_texts(model)
            else:
                path, special = Path(self.text), self.special_tokens
                texts = read_texts(path, self.documents, problems.append, self.field, special_tokens=special)
            tokenizer = load_tokenizer(model, revision=self.revision)
            options = {"special_tokens": self.special_tokens, "note": problems.append}
            corpus = make_corpus(texts, tokenizer, self.delimiter, **options)  # pyright: ignore[reportArgumentType]
        except InputError as error:
            raise InputError(f"{model}: {error}") from error
        for problem in problems:
            _LOGGER.warning("Left out %s", printable(problem))
        return corpus.shortened(self.documents)


@dataclass(frozen=True)
class TextRun:
    """One model on one text, under some conditions.

    Attributes:
        model: A bundled name, a folder, or an id of the Hugging Face hub.
        label: What tables call it.
        reading: What it reads.
        windows: Past and future of each H_i.
        conditions: How the text is changed, among `CONDITIONS`.
    """

    model: str
    label: str
    reading: Reading
    windows: Windows
    conditions: tuple[str, ...]
    metric = CLAIM_METRIC
    """The column of the ESS for which claims are made."""

    @cached_property
    def key(self) -> str:
        """A digest of the model's weights, its tokens and all else that the rows depend on; the model is loaded."""
        corpus = self.corpus
        facts = {
            "schema": SCHEMA,
            **model_facts(self.load()),
            "documents": tokens_sha256(list(corpus.documents)),
            "delimiter": [corpus.delimiter, corpus.beginning, sorted(corpus.special)],
            "windows": asdict(self.windows),
            "conditions": self.conditions,
            "measured": [self.reading.length, self.reading.channels, self.reading.seed, self.label],
            "tolerances": [*METRICS, TOLERANCE, RELATIVE_TOLERANCE],
        }
        return digest(json.dumps(facts, sort_keys=True, default=repr).encode())

    @cached_property
    def corpus(self) -> DocumentCorpus:
        """What it reads."""
        return self.reading.corpus(self.model)

    def load(self) -> nn.Module:
        """The model."""
        reading = self.reading
        return load_model(self.model, device=reading.device, dtype=reading.dtype, revision=reading.revision).model

    def dips(self, model: nn.Module) -> Iterator[Row]:
        """The rows of the dips of the loaded model at delimiters."""
        reading, windows = self.reading, self.windows
        named = {"model": self.label, "delimiter": reading.delimiter, **asdict(windows)}
        for dip in measure_dips(model, self.corpus, windows, reading.channels, reading.seed, self.conditions):
            yield {**named, **vars(dip)}


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
    fitting = [choose_windows(reading.corpus(model), reading.window) for model in models]
    windows = min(fitting, key=lambda window: window.past)
    names = {model: Path(model).absolute().name if Path(model).is_dir() else model for model in models}
    if len(set(names.values())) < len(models):
        names = {model: model for model in models}
    return tuple(TextRun(model, names[model], reading, windows, tuple(conditions)) for model in models)
