"""From a study's table to its conclusion and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from statesize.lab.studies.catalogue import GRID_STUDIES
from statesize.lab.studies.grid.run import Row
from statesize.lab.studies.grid.settings import GridSettings
from statesize.lab.studies.page.conclusion import Conclusion
from statesize.lab.studies.page.page import write_page


def conclude(settings: GridSettings, rows: Sequence[Row], folder: Path, command: str = "") -> Conclusion:
    """The conclusion of a study, and its page study.html in its folder; a full disk is a FileError.

    Args:
        settings: The grid.
        rows: All its rows.
        folder: Folder of the study.
        command: The command line that made it.

    Returns:
        The conclusion.
    """
    metric, study = settings.runs[0].measuring.claim_metric, GRID_STUDIES[settings.study]
    conclusion = study.conclude(rows, metric, settings.claim)
    write_page(conclusion, study.charts(rows, metric), rows, folder, command)
    return conclusion
