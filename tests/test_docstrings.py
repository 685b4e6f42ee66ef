"""The examples in docstrings are run, and every public name has its place in the API page."""

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import statesize

MODULES = sorted(module.name for module in pkgutil.walk_packages(statesize.__path__, "statesize."))
NEEDS_FLA = "statesize.reduction.projected_deltanet"
API_PAGE = Path(__file__).parent.parent / "docs" / "reference.rst"


@pytest.mark.parametrize("name", ["statesize", *MODULES])
def test_examples(name):
    if name == NEEDS_FLA and importlib.util.find_spec("fla") is None:
        pytest.skip("flash-linear-attention is not here")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(statesize.__all__) - {"__version__"}))
def test_public_name_is_documented(name):
    assert f"statesize.{name}" in API_PAGE.read_text(encoding="utf-8")
    assert getattr(statesize, name).__doc__
