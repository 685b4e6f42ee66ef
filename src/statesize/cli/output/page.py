"""Where a page is, told on stderr, and its opening in the browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from statesize.cli.output.printing import Printing


def tell_page(path: Path, printing: Printing, *, open_page: bool) -> None:
    """Say where a report lies, and open it if that is wanted."""
    printing.say(f"Report: {path}")
    if open_page and not webbrowser.open(path.absolute().as_uri()):
        printing.say(f"No browser could be started; open {path.absolute().as_uri()} in one.")
