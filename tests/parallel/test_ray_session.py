"""What is refused before Ray is started; sessions themselves are tested where they are used."""

import contextlib
import os
import signal
import socket
import subprocess
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
    assert str(error) == "Ray is not installed; pip install ray, or run without it"


@pytest.mark.parametrize("address", ["", "somewhere", "http://host", "host:port", ":6379", "ray://"])
def test_an_address_that_is_none(address):
    assert "must be HOST:PORT, ray://HOST:PORT or auto, got" in str(refusal(address))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_answers(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"nothing answers at the Ray address {scheme}127.0.0.1:{port}" in str(refusal(f"{scheme}127.0.0.1:{port}"))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_something_else_answers(answer, monkeypatch):
    monkeypatch.setattr("statesize.parallel.ray._CONNECT_SECONDS", 0.2)
    with answering(answer) as address:
        message = str(refusal(address))
    assert f"the Ray address {address}" in message
    assert ("nothing answers" if answer is None else "is not Ray") in message


@pytest.mark.parametrize("kind", [Exception, RuntimeError, ConnectionError])
@pytest.mark.parametrize("there", [False, True])
def test_what_ray_says_when_it_does_not_start(kind, there, monkeypatch):
    # A time-out of its own takes minutes, and needs a machine that is out of memory or processes.
    def init(**options):
        raise kind("The current node timed out during startup.\n  This could happen because ...")

    monkeypatch.setattr(ray, "init", init)
    with answering(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        message = str(refusal(address if there else None))
    where = f"at {address}" if there else "on this machine"
    assert message == (
        f"Ray {where} cannot be started or reached: The current node timed out during startup. This could happen"
        " because ..." + (" If the cluster asks for a token, set RAY_AUTH_MODE=token here too." if there else "")
    )


@pytest.mark.slow
@pytest.mark.parametrize("word", ["gcs_server", "raylet/raylet"])
def test_the_head_is_gone(word):
    """Ray itself ends the process after a minute, or waits for ever where only the node is gone."""
    program = f"""
import os, signal, sys, time
from pathlib import Path
from statesize.errors import StatesizeError
from statesize.parallel.ray import first_ready, ray_session
with ray_session() as ray:
    answer = ray.remote(lambda: time.sleep(1000)).remote()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        if int(parent) == os.getpid() and {word!r} in path.read_text().split(chr(0))[0]:
            os.kill(int(path.parent.name), signal.SIGKILL)
    try:
        while first_ready(ray, [answer]) is None:
            pass
    except StatesizeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert "is gone; nothing was kept" in done.stdout, done.stderr
    assert done.returncode == 0


def test_a_cluster_with_tls_need_not_speak_first(monkeypatch):
    # It would not answer before it knows who asks.
    def init(**options):
        raise ConnectionError("as far as Ray itself")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with answering(b"") as address:
        assert "as far as Ray itself" in str(refusal(address))


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
