"""The study of recall as a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from statesize.lab.studies.study import TextOptions, TextStudy

if TYPE_CHECKING:
    from torch import nn

    from statesize.lab.studies.delimiters.dips import ModelDips
    from statesize.lab.studies.delimiters.subjects import Subject
    from statesize.lab.studies.grid.run import Row
    from statesize.lab.studies.recall.claim import ModelRecall


@Parameter(name="*")
@dataclass(frozen=True)
class RecallOptions(TextOptions):
    """Options of the study of recall.

    Attributes:
        length: Tokens of the sequences that are predicted; 256, or as the recall models were trained, if not given.
    """

    length: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None


class _Recall(TextStudy["ModelRecall"]):
    """Perplexities on repeated bigrams, and dips at delimiters."""

    options = RecallOptions

    @property
    def conditions(self) -> tuple[str, ...]:
        from statesize.lab.studies.delimiters.sequences import OBSERVED

        return (OBSERVED,)

    def measure(self, subject: Subject, options: Any, dips: Callable[[nn.Module | None], ModelDips]) -> ModelRecall:
        from statesize.lab.studies.recall.claim import ModelRecall
        from statesize.lab.studies.recall.score import recall_score

        model = subject.load()
        score = recall_score(model, subject.corpus, options.length or subject.length, subject.scored)
        return ModelRecall(subject.name, score, dips(model))

    def tables(self, found: Sequence[ModelRecall]) -> dict[str, list[Row]]:
        from statesize.lab.studies.recall.claim import recall_rows

        return {"table.parquet": recall_rows(found)}

    def document(self, found: Sequence[ModelRecall]) -> dict[str, Any]:
        from statesize.lab.studies.recall.claim import recall_models

        return {"models": recall_models(found)}


RECALL = _Recall(
    name="recall",
    help="""Measure perplexity on repeated bigrams, and how it goes with ESS and its dip at delimiters, over models.

OUTPUT receives table.parquet, one row a model, and study.html.""",
    examples=("statesize study recall", "statesize study recall --json > recall.json"),
)
