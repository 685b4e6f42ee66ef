"""The version of the package, and those of what it runs with."""

import platform
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed(*packages: str) -> dict[str, str]:
    """Versions of statesize, of Python and of packages."""
    found = {"statesize": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
