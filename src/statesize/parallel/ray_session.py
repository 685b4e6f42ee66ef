"""Ray: a cluster at an address, or one on this machine that is stopped at the end."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from statesize.check import refuse
from statesize.errors import InputError, StatesizeError

_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
_SETTINGS = b"\4"
_GOES_ON = "what is finished is kept, and the same command goes on"
# Of the machine's memory, what workers may ask for; the rest is for the calling process and Ray's own.
_FOR_WORKERS = 0.8
# No reports of usage, and 127.0.0.1 as the address of each process, as Ray does by itself where it runs no clusters.
_LOCAL = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0", _LOCAL: "0"}


@contextmanager
def ray_session(address: str | None = None) -> Generator[Any]:
    """Ray, connected to a cluster, for the time of a block."""
    # Without an address, a connection that the process has already is used and left open; else Ray is started on this
    # machine, without a dashboard and without reports of its usage, and stopped at the end. It runs what it is sent,
    # and therefore listens to this machine alone; a cluster that is started otherwise listens to all who can reach it.
    try:
        with _private(address):
            ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise InputError("Ray is not installed; pip install ray, or run without it") from error
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                f"this process is connected to a Ray cluster already; leave the address {address} out to use that one,"
                " or call ray.shutdown() before"
            )
        yield ray
        return
    if address not in {None, "auto"}:
        _require_reachable(str(address))
    with _handlers_kept() as keep, _private(address):
        try:
            try:
                ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **_local(address))
                keep()
            except Exception as error:
                # Also plain ones: when a node does not start in time, or the head of the cluster is not there yet.
                where = "on this machine" if address is None else f"at {address}"
                reason = " ".join(str(error).split())[:300]
                token = "" if address is None else " If the cluster asks for a token, set RAY_AUTH_MODE=token here too."
                raise StatesizeError(f"Ray {where} cannot be started or reached: {reason}{token}") from error
            yield ray
        finally:
            ray.shutdown()


def wait_for_one(ray: Any, pending: Sequence[Any]) -> Any:
    """The first of some answers that is there; a StatesizeError where the cluster's head or this node is gone."""
    # Ray itself would end the process a minute later, or wait for ever.
    context = ray.get_runtime_context()
    # None of a client, to which Ray itself tells what is gone.
    head = str(getattr(context, "gcs_address", ""))
    while True:
        _require_head(head)
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=_PATIENCE_SECONDS)
        if ready:
            return ready[0]
        # Without a head, Ray would wait for it here, and end the process.
        _require_head(head)
        own = [node for node in ray.nodes() if head and node["NodeID"] == context.get_node_id()]
        if not all(node["Alive"] for node in own):
            raise StatesizeError(f"the node of the Ray cluster on this machine is gone; {_GOES_ON}")


def _require_head(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise StatesizeError(f"the head of the Ray cluster at {address} is gone; {_GOES_ON}") from error


def available_cores() -> int:
    """The cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(address: str | None) -> dict[str, Any]:
    if address is not None:
        return {}
    # Every core that the process may use, not only the whole ones of a container's share.
    options: dict[str, Any] = {"num_cpus": available_cores(), "include_dashboard": False}
    # Ray's own is 15, with which workers starve beside anything else that computes.
    options["_system_config"] = {"worker_niceness": 0}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = Path("/sys/fs/cgroup/memory.max")
        text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
        options["_memory"] = int(_FOR_WORKERS * (min(memory, int(text)) if text.isdigit() else memory))
    return options


def _require_reachable(address: str) -> None:
    # Ray itself waits for minutes, and then may end the process.
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        refuse("the Ray address", "HOST:PORT, ray://HOST:PORT or auto", address)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in {"0", ""}:
                return
            frame = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"nothing answers at the Ray address {address} ({error}); start a cluster there with ray start --head, or"
            " give no address"
        ) from error
    # The gRPC of Ray speaks first, with a frame of HTTP/2 whose type stands in the fourth byte.
    if frame[3:4] != _SETTINGS:
        raise InputError(
            f"what answers at the Ray address {address} is not Ray; its head listens at port 6379 by default"
        )


@contextmanager
def _handlers_kept() -> Generator[Callable[[], None]]:
    # Ray sets its own handler of SIGTERM, and leaves it. One of Python unwinds the session, one of the system would
    # leave Ray's processes behind.
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)

    def put_back() -> None:
        if here and callable(before):
            signal.signal(signal.SIGTERM, before)

    try:
        yield put_back
    finally:
        if here and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _private(address: str | None) -> Generator[None]:
    """The environment of a Ray of one's own; what the user has set stays."""
    added = {} if address is not None else {name: value for name, value in _PRIVATE.items() if name not in os.environ}
    # Ray reads this one when it is imported, which may have been before.
    module = sys.modules.get("ray._private.ray_constants")
    constants = {} if module is None or _LOCAL not in added else vars(module)
    kept = {name: constants[name] for name in ("ENABLE_RAY_CLUSTER",) if name in constants}
    os.environ.update(added)
    constants.update(dict.fromkeys(kept, False))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
        constants.update(kept)
