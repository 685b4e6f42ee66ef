"""The examples in docstrings are run."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import statesize

MODULES = sorted(module.name for module in pkgutil.walk_packages(statesize.__path__, "statesize."))
NEEDS_FLA = "statesize.reduction.projected_deltanet"


@pytest.mark.parametrize("name", ["statesize", *MODULES])
def test_examples(name):
    if name == NEEDS_FLA and importlib.util.find_spec("fla") is None:
        pytest.skip("flash-linear-attention is not here")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
