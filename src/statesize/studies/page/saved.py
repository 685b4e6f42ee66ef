"""What a study's page says, kept beside its table, so that the page can be made again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from statesize.errors import FileError
from statesize.files import parse_json, read_limited
from statesize.studies.page.conclusion import Conclusion, Figure, known

NAME = "conclusion.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Saved:
    """A conclusion with its charts.

    Attributes:
        conclusion: What the study says.
        charts: Vega-Lite with its data.
        versions: Of what concluded it.
    """

    conclusion: Conclusion
    charts: Mapping[str, Any]
    versions: Mapping[str, str]

    def content(self) -> bytes:
        """The file.

        Returns:
            JSON; numbers that are not finite are null.
        """
        said = self.conclusion
        document = {
            "schema": SCHEMA,
            "study": said.study,
            "claim": said.claim,
            "holds": said.holds,
            "figures": known(said.figures),
            "statements": said.statements,
            "caveats": said.caveats,
            "versions": self.versions,
            "charts": self.charts,
        }
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_saved(folder: Path) -> Saved:
    """The conclusion of a study that is done.

    Args:
        folder: Of the study.

    Returns:
        The conclusion with its charts.

    Raises:
        FileError: There is none, or it cannot be read.
    """
    path = folder / NAME
    try:
        document = cast("dict[str, Any]", parse_json(read_limited(path)))
        if document["schema"] != SCHEMA:
            raise FileError(f"{path} has schema version {document['schema']!r} and {SCHEMA} was expected")
        holds = document["holds"]
        said = Conclusion(
            study=str(document["study"]),
            claim=str(document["claim"]),
            holds=None if holds is None else bool(holds),
            figures={str(name): _figure(value) for name, value in document["figures"].items()},
            statements=tuple(map(str, document["statements"])),
            caveats=tuple(map(str, document["caveats"])),
        )
        return Saved(
            said, dict(document["charts"]), {str(name): str(one) for name, one in document["versions"].items()}
        )
    except FileNotFoundError as error:
        raise FileError(
            f"{folder} holds a study without {NAME}; the same `statesize study` command, with --output {folder}, does "
            "what is missing and writes it"
        ) from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is not a conclusion that `statesize study` wrote ({error})") from error


def _figure(value: object) -> Figure:
    if isinstance(value, list):
        low, high = cast("list[float]", value)
        return float(low), float(high)
    return math.nan if value is None else float(cast("float", value))
