"""`statesize report`: HTML from a saved profile."""

from __future__ import annotations

from pathlib import Path


def report(result: Path, /, *, output: Path | None = None) -> None:
    """Write the HTML report of a profile that `statesize profile --output` or `Profile.save` wrote.

    Args:
        result: The profile's folder.
        output: The report; the profile's name with .html in the current folder if not given.
    """
    from statesize.cli.progress import say
    from statesize.profiling import Profile
    from statesize.report import check_report_path, write_report

    path = output or Path(f"{result.absolute().name}.html")
    check_report_path(path)
    write_report([Profile.load(result)], path)
    say(f"Report: {path}")
