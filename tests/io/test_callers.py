"""A warning names the line of whoever called, whatever frames of decorators and of this package lie between."""

from importlib.metadata import EntryPoint

import pytest

import statesize as ss
from statesize.errors import StatesizeError, StatesizeWarning
from statesize.models.plugins import MODELS, model_plugins

NOWHERE = "./nowhere"
CALLS = {
    "load": lambda: ss.load(NOWHERE),
    "profile": lambda: ss.profile(NOWHERE, "a text"),
    "network_ess": lambda: ss.network_ess(NOWHERE, "a text"),
    "truncate": lambda: ss.truncate(NOWHERE, "a text"),
    "cache": lambda: ss.cache(NOWHERE, "a text"),
}


@pytest.fixture
def damaged_plugin(monkeypatch):
    entry = EntryPoint("damaged", "no_such_module", MODELS)
    monkeypatch.setattr("statesize.io.plugins.entry_points", lambda group: [entry])
    model_plugins.cache_clear()
    yield
    model_plugins.cache_clear()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("damaged_plugin")
def test_a_warning_names_the_line_of_the_caller(name):
    with pytest.warns(StatesizeWarning) as caught, pytest.raises(StatesizeError):
        CALLS[name]()
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, CALLS[name].__code__.co_firstlineno)
