"""All studies. A study is a folder and its line here: commands, conclusions and pages follow from this list."""

from __future__ import annotations

from typing import Any

from statesize.lab.studies.correlation.study import CORRELATION
from statesize.lab.studies.delimiters.study import DELIMITERS
from statesize.lab.studies.distillation.study import DISTILLATION
from statesize.lab.studies.hybrids.study import HYBRIDS
from statesize.lab.studies.initialisation.study import INITIALISATION
from statesize.lab.studies.recall.study import RECALL
from statesize.lab.studies.regimes.study import REGIMES
from statesize.lab.studies.regularisation.study import REGULARISATION
from statesize.lab.studies.study import GridStudy, TextStudy
from statesize.lab.studies.zoology.study import ZOOLOGY

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
