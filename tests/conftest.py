"""Settings that hold for every test (one torch thread, interrupts, how hard hypothesis tries), and small models."""

import gc
import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Threads that wait would spin, and take the processors from those that work: a test on two threads took ten times as
# long. Torch reads it when it is imported; `statesize` itself sets it too. The library of numpy spins whatever the
# policy: on a busy machine two of its threads took twelve times the processor time of one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings
from oracles.operators import random_operator

from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.measurement import measure
from statesize.parallel.ray import ray_session
from statesize.profiling import profile

SOURCES = Path(__file__).parent.parent / "src"

torch.set_num_threads(1)

# Nothing of what tests import is garbage, and each worker would look through it for seconds.
gc.disable()

# Processes that tests start run the clone too, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))

# A shell that runs the tests in the background ignores interrupts for them, and children would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline would assert a time, and the first example of many pays for torch's own start.
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("large", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def compile_kernels():
    """Compiles what numba keeps on disk."""
    for family, engine in (("attention", "all_cuts"), ("diagonal", "small_state")):
        measure(random_operator(family, 0, 70), engine=engine, outputs=("counts", "entropy"))


def pytest_sessionstart(session):
    """Compiles kernels once, while the processes of the tests, which would each compile them, collect."""
    if session.config.getoption("numprocesses", None):
        gc.enable()
        executor = ThreadPoolExecutor(1)
        session.config.kernels = executor.submit(compile_kernels)
        executor.shutdown(wait=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node):
    """No test begins before the kernels are compiled."""
    node.config.kernels.result()


def leave_few(items):
    """Of the cases of a test with the mark `few`, marks all as slow but so many, evenly spread."""
    cases = {}
    for item in items:
        if item.get_closest_marker("few") and not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for alike in cases.values():
        few = min(alike[0].get_closest_marker("few").args[0], len(alike))
        kept = {number * (len(alike) - 1) // max(few - 1, 1) for number in range(few)}
        for number in set(range(len(alike))) - kept:
            alike[number].add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(items):
    leave_few(items)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish():
    """What is imported by now stays: looking through it for garbage took a quarter of a second each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def small_profile():
    """A small language model's profile over two sequences."""
    config = ModelConfig(mixer="gla", vocabulary_size=16, width=8, heads=2, layers=2, key_size=3)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    return profile(
        model,
        [list(range(12)), [3, 1, 4, 1, 5, 9, 2]],
        name="tiny <gla>",
        tolerances=(1e-3, 1e-1),
        relative_tolerances=(1e-2, 1e-1),
    )


@pytest.fixture(scope="module")
def ray():
    """A real Ray of this machine."""
    with ray_session() as ray:
        yield ray
    with warnings.catch_warnings():
        # On a busy machine Ray does not wait for the end of the processes that it has started.
        warnings.filterwarnings("ignore", "subprocess .* is still running", ResourceWarning)
        gc.collect()
