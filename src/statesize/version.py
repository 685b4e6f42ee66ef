"""The version of the package, and those of what it runs with."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed(*packages: str) -> dict[str, str]:
    """Versions of statesize, of Python and of packages."""
    versions = {"statesize": __version__, "python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
