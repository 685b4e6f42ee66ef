import pytest

from statesize.tasks import python_prose


@pytest.fixture(scope="session")
def prose():
    return python_prose()
