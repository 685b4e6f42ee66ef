"""Names of the laboratory: mixers, tasks and studies, each found in its folder or in a package of a user."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from typing import Generic, TypeVar

from statesize.check import refuse, require_choice, require_kind
from statesize.errors import FileError, InputError

Kind = TypeVar("Kind", bound=type)
Own = TypeVar("Own", bound=type)

PLUGINS = "statesize.lab"
"""Group of entry points, each a module that registers mixers, tasks and studies where it is imported."""


class Registry(Generic[Kind]):
    """Classes by name; as a decorator, `@mixer("gla")`, it adds one.

    Args:
        noun: What its classes are, for messages.
        folder: Package whose modules are imported when a name is first looked up.
        check: Refuses a class that cannot be used.
    """

    def __init__(self, noun: str, folder: str, check: Callable[[type], None]) -> None:
        self.noun, self.folder, self._check = noun, folder, check
        self._classes: dict[str, Kind] = {}
        self._looked = False

    def __call__(self, name: str) -> Callable[[Own], Own]:
        """The decorator that registers a class by a name.

        Args:
            name: Letters, digits, "-" and "_". A name is taken once; the same class defined again, as in a notebook,
                replaces it.

        Returns:
            The decorator, which refuses a taken name or a class that cannot be used with an InputError.
        """
        require_kind("name", name, str, "a string")
        if not re.fullmatch(r"[\w-]+", name):
            refuse("name", "letters, digits, - and _", name)

        def register(kind: Own) -> Own:
            self._check(kind)
            known = self._classes.get(name, kind)
            if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
                raise InputError(f"name must be one that no other {self.noun} has, got {name!r}.")
            kind.kind = name
            self._classes[name] = kind  # pyright: ignore[reportArgumentType]
            return kind

        return register

    def names(self) -> tuple[str, ...]:
        """All names, in alphabetical order."""
        if not self._looked:
            self._looked = True
            for module in iter_modules(import_module(self.folder).__path__):
                import_module(f"{self.folder}.{module.name}")
            for entry in entry_points(group=PLUGINS):
                entry.load()
        return tuple(sorted(self._classes))

    def __getitem__(self, name: str) -> Kind:
        """The class of a name; an InputError where there is none."""
        return self._classes[require_choice(self.noun, name, self.names())]


def load_plugin(path: Path) -> None:
    """Imports a Python file that registers mixers, tasks or studies; a FileError where there is none."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileError(
            f"plugin must be a Python file, got {path}. Give one that registers a mixer, a task or a study."
        )
    spec.loader.exec_module(module_from_spec(spec))
