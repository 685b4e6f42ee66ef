"""What every result has: a headline, tables, a page, a document, and how each of them is shown and written."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from statesize.check import require_path
from statesize.io.files import replace_file
from statesize.io.json_values import json_values
from statesize.report.table import PageTable, html_table, table_text

if TYPE_CHECKING:
    from statesize.report.result_page import ResultPage


class Result(ABC):
    """A result that shows itself: subclasses give its sentence, table, page and document."""

    all_numbers: ClassVar[str] = ".to_dict()"
    """What has the columns for which a terminal has no room."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """What was found, in one sentence."""

    @abstractmethod
    def table(self) -> PageTable:
        """The table that is read first."""

    @property
    def legend(self) -> Sequence[str]:
        """A line for each code of the table."""
        return ()

    @abstractmethod
    def page(self) -> ResultPage:
        """Its page."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its document, of JSON values."""

    @property
    def file_name(self) -> str:
        """What its page is called, without a suffix, where no path is given."""
        return type(self).__name__.lower()

    def to_html(self, path: str | PathLike[str] | None = None) -> Path:
        """Write its page, one self-contained file; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists. None takes a file in this folder, called after the result.

        Returns:
            The file.
        """
        return self.page().write(path or f"{self.file_name}.html")

    def to_json(self, path: str | PathLike[str]) -> Path:
        """Write its document; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists.

        Returns:
            The file.
        """
        path = require_path("path", path)
        text = json.dumps(json_values(self.to_dict()), ensure_ascii=False, allow_nan=False)
        replace_file(path, text.encode())
        return path

    def __repr__(self) -> str:
        lines = table_text(self.table(), shutil.get_terminal_size().columns, self.all_numbers)
        return "\n".join([self.headline, *lines, *self.legend])

    def _repr_html_(self) -> str:
        table = self.table()
        notes = "".join(f"<p>{escape(line)}</p>" for line in self.legend)
        return f"<p>{escape(self.headline)}</p>{html_table(table.headings, table.rows)}{notes}"
