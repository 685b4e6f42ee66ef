"""What is refused before Ray is started; sessions themselves are tested where they are used."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from statesize.errors import FileError, StatesizeError
from statesize.parallel.ray import available_cores, ray_session

# Importing it sets variables of the environment.
ray = pytest.importorskip("ray")


def refusal(address=None):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StatesizeError) as caught, ray_session(address):
        pass
    assert signal.getsignal(signal.SIGTERM) is handler
    return caught.value


def test_ray_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refusal()
    assert isinstance(error, FileError)
    assert "pip install ray" in str(error)


@pytest.mark.parametrize("address", ["", "somewhere", "http://host", "host:port", ":6379", "ray://"])
def test_an_address_that_is_none(address):
    assert "HOST:PORT" in str(refusal(address))


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_nothing_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"127.0.0.1:{port}" in str(refusal(f"ray://127.0.0.1:{port}"))


@pytest.mark.parametrize("kind", [Exception, RuntimeError, ConnectionError])
def test_what_ray_says_when_it_does_not_start_in_any_thread(kind, monkeypatch):
    # A time-out of its own takes minutes, and needs a machine that is out of memory or processes.
    def init(**options):
        assert options["num_cpus"] == available_cores()
        raise kind("The current node timed out during startup.\n  This could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    # Only the main thread may set handlers of signals.
    with ThreadPoolExecutor(1) as pool:
        for error in (refusal(), pool.submit(refusal).result()):
            assert "The current node timed out during startup." in str(error)
