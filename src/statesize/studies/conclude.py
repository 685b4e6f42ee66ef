"""From a study's table to its conclusion and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from statesize.studies.correlation.claim import correlation
from statesize.studies.distillation.charts import distillation_charts
from statesize.studies.distillation.claim import distillation
from statesize.studies.grid.run import Row
from statesize.studies.grid.settings import Settings
from statesize.studies.hybrids.charts import hybrids_charts
from statesize.studies.hybrids.claim import hybrids
from statesize.studies.initialisation.charts import initialisation_charts
from statesize.studies.initialisation.claim import initialisation
from statesize.studies.page.charts import correlation_charts, regimes_charts
from statesize.studies.page.conclusion import Conclusion
from statesize.studies.page.page import write_page
from statesize.studies.regimes.claim import regimes
from statesize.studies.regularisation.charts import regularisation_charts
from statesize.studies.regularisation.claim import regularisation

STUDIES = {
    "correlation": (correlation, correlation_charts),
    "distillation": (distillation, distillation_charts),
    "hybrids": (hybrids, hybrids_charts),
    "initialisation": (initialisation, initialisation_charts),
    "regimes": (regimes, regimes_charts),
    "regularisation": (regularisation, regularisation_charts),
}
"""The conclusion and the charts of a study, each from all rows and the column of the claim's metric."""


def conclude(settings: Settings, rows: Sequence[Row], folder: Path) -> Conclusion:
    """The conclusion of a study, and its page study.html in its folder; a full disk is a FileError.

    Args:
        settings: The grid.
        rows: All its rows.
        folder: Of the study.

    Returns:
        The conclusion.
    """
    metric = settings.runs[0].measuring.claim_metric
    conclusion_of, charts_of = STUDIES[settings.study]
    conclusion = conclusion_of(rows, metric)
    write_page(conclusion, charts_of(rows, metric), rows, folder)
    return conclusion
