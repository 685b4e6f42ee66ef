"""What is refused before Ray is started; sessions themselves are tested where they are used."""

import os
import signal
import socket
import sys

import pytest

from statesize.errors import InputError, StatesizeError
from statesize.ray_session import ray_session

# Importing it sets variables of the environment.
pytest.importorskip("ray")


def refusal(address=None):
    handler, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(StatesizeError) as caught, ray_session(address):
        pass
    assert signal.getsignal(signal.SIGTERM) is handler
    assert dict(os.environ) == environment
    return caught.value


def test_ray_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refusal()
    assert isinstance(error, InputError)
    assert str(error) == "Ray is not installed; pip install 'statesize[ray]', or run without it"


@pytest.mark.parametrize("address", ["", "somewhere", "http://host", "host:port", ":6379", "ray://"])
def test_an_address_that_is_none(address):
    assert "HOST:PORT, ray://HOST:PORT or auto was expected" in str(refusal(address))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_answers(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"nothing answers at the Ray address {scheme}127.0.0.1:{port}" in str(refusal(f"{scheme}127.0.0.1:{port}"))
