"""What is refused before Ray is started; sessions themselves are tested where they are used."""

import contextlib
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from statesize.errors import FileError, StatesizeError
from statesize.parallel.ray import available_cores, ray_session

# Importing it sets variables of the environment.
ray = pytest.importorskip("ray")


def refusal(address=None):
    handler, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(StatesizeError) as caught, ray_session(address):
        pass
    assert signal.getsignal(signal.SIGTERM) is handler
    assert dict(os.environ) == environment
    return caught.value


@contextmanager
def answering(words):
    """The address of a server that says these words; None is silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connections.append(connection)
                if words is not None:
                    connection.sendall(words)
                    connection.shutdown(socket.SHUT_WR)

        connections = []
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            # Lets the thread go on where nobody came.
            with contextlib.suppress(OSError):
                socket.create_connection(server.getsockname()).close()
            thread.join()
            for connection in connections:
                connection.close()


def test_ray_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refusal()
    assert isinstance(error, FileError)
    assert "pip install ray" in str(error)


@pytest.mark.parametrize("address", ["", "somewhere", "http://host", "host:port", ":6379", "ray://"])
def test_an_address_that_is_none(address):
    assert "HOST:PORT" in str(refusal(address))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_answers(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"{scheme}127.0.0.1:{port}" in str(refusal(f"{scheme}127.0.0.1:{port}"))


@pytest.mark.parametrize("kind", [Exception, RuntimeError, ConnectionError])
@pytest.mark.parametrize("there", [False, True])
def test_what_ray_says_when_it_does_not_start(kind, there, monkeypatch):
    # A time-out of its own takes minutes, and needs a machine that is out of memory or processes.
    def init(**options):
        raise kind("The current node timed out during startup.\n  This could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    with answering(b"") as address:
        message = str(refusal(address if there else None))
    assert (address if there else "on this machine") in message
    assert "The current node timed out during startup. This could happen" in message


def test_a_session_of_a_thread_and_of_a_system_that_does_not_tell_its_memory(monkeypatch):
    given = []

    def init(**options):
        given.append(options)
        raise RuntimeError("not started")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delattr(os, "sysconf")
    # Only the main thread may set handlers of signals.
    with ThreadPoolExecutor(1) as pool:
        assert "not started" in str(pool.submit(refusal).result())
    assert given[0]["num_cpus"] == available_cores()
    assert "_memory" not in given[0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
