"""All studies: commands, conclusions and pages follow from this list.

The command line reads this file whenever it starts, so heavy modules are imported when a study is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter, validators

from statesize.lab.studies.study import GridStudy, TextOptions, TextStudy


@Parameter(name="*")
@dataclass(frozen=True)
class RecallOptions(TextOptions):
    """Options of the study of recall.

    Attributes:
        length: Tokens of the sequences that are predicted; 256, or as the recall models were trained, if not given.
    """

    length: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None


STUDIES: tuple[GridStudy | TextStudy, ...] = (
    GridStudy(
        name="correlation",
        help=(
            "Train a grid of small models: does accuracy go with ESS/kv, and more than with TSS/kv, also where runs "
            "differ in their seed only?"
        ),
        examples=("statesize study correlation --preset smoke",),
    ),
    TextStudy(
        name="delimiters",
        help="""Measure how ESS dips at the delimiters of a text, and at the same places of controls without them.

OUTPUT receives table.parquet (depths of models, layers and heads), curves.parquet and study.html, and finished parts as
parts/*.parquet, one row for each sequence, head and offset.""",
        examples=("statesize study delimiters", "statesize study delimiters gla --text docs.jsonl --delimiter newline"),
    ),
    GridStudy(
        name="distillation",
        help="Teach students with less state: does the teacher's ESS predict their error, and what does a byte buy?",
        examples=("statesize study distillation --dry-run",),
    ),
    GridStudy(
        name="hybrids",
        help=(
            "Place one and two attention layers among gated ones in every way: which wins, and does ESS show it early?"
        ),
        examples=("statesize study hybrids --preset smoke --json",),
    ),
    GridStudy(
        name="initialisation",
        help=(
            "Start the decays of S6 and GLA-S6 with and without the normalisation factor: what does ESS gain as states "
            "grow, and what accuracy?"
        ),
        examples=("statesize study initialisation --preset smoke",),
    ),
    TextStudy(
        name="recall",
        help="""Measure the perplexity of models on repeated bigrams: does it go with ESS, or its dip at delimiters?

OUTPUT receives table.parquet, one row for each model, and study.html.""",
        examples=("statesize study recall", "statesize study recall --json > recall.json"),
        options=RecallOptions,
    ),
    GridStudy(
        name="regimes",
        help=(
            "Train mixers with equal state sizes on harder and harder tasks: which fill their state, and which "
            "leave it idle?"
        ),
        examples=("statesize study regimes --config grid.toml --ray auto",),
    ),
    GridStudy(
        name="regularisation",
        help=(
            "Keep decays near 1, or ESS near a target, by a term in the loss: what do accuracy and ESS of gated "
            "mixers gain?"
        ),
        examples=("statesize study regularisation --preset smoke",),
    ),
    GridStudy(
        name="zoology",
        help=(
            "Train models on the recall task of Zoology's figure 2: best accuracy of four rates beside the published "
            "one, and ESS."
        ),
        examples=("statesize study zoology --preset paper --ray auto",),
    ),
)
GRID_STUDIES = {study.name: study for study in STUDIES if isinstance(study, GridStudy)}
