"""The version of the package, and those of what it runs with."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed(*packages: str) -> dict[str, str]:
    """Versions of statesize, of Python and of packages."""
    versions = {"statesize": __version__, "python": platform.python_version()}
    return versions | {package: known for package in packages if (known := _version(package))}


@cache
def _version(package: str) -> str | None:
    """Read once: a version takes milliseconds."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
