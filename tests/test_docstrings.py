"""The examples in docstrings are run."""

import doctest
import importlib
from pathlib import Path

import pytest

import statesize

SOURCES = Path(statesize.__file__).parent
# To look through all modules took ten seconds, and six in seven have no example.
MODULES = sorted(
    ".".join(path.relative_to(SOURCES.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCES.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
