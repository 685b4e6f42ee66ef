"""Choices of what a memory keeps: each a class in its own file, with its paper, which is all that adds one."""

from importlib import import_module
from pkgutil import iter_modules

from statesize.truncation.choices.choice import Rule
from statesize.truncation.choices.past_rows import PastRows

_FILES = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
NOTHING = Rule("nothing", "nothing", PastRows())
_RULES: list[Rule] = [rule for file in _FILES for rule in vars(file).get("RULES", ())]
RULES = {rule.name: rule for rule in (NOTHING, *_RULES)}
"""Rules of the truncation test, by name."""
