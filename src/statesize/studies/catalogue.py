"""All studies. A study is a folder and its line here: commands, conclusions and pages follow from this list."""

from __future__ import annotations

from typing import Any

from statesize.studies.correlation.study import CORRELATION
from statesize.studies.delimiters.study import DELIMITERS
from statesize.studies.distillation.study import DISTILLATION
from statesize.studies.hybrids.study import HYBRIDS
from statesize.studies.initialisation.study import INITIALISATION
from statesize.studies.recall.study import RECALL
from statesize.studies.regimes.study import REGIMES
from statesize.studies.regularisation.study import REGULARISATION
from statesize.studies.study import GridStudy, TextStudy
from statesize.studies.zoology.study import ZOOLOGY

STUDIES: tuple[GridStudy | TextStudy[Any], ...] = (
    CORRELATION,
    DELIMITERS,
    DISTILLATION,
    HYBRIDS,
    INITIALISATION,
    RECALL,
    REGIMES,
    REGULARISATION,
    ZOOLOGY,
)
GRID_STUDIES = {study.name: study for study in STUDIES if isinstance(study, GridStudy)}
