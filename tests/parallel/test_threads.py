"""Libraries are held at one thread, and tasks share the others."""

import threading
import time

import pytest
import torch

from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.operators import Dense
from statesize.parallel.threads import blas_functions, free_threads, in_parallel, one_thread


def blas():
    return {get() for get, _ in blas_functions()}


@pytest.fixture
def two_threads():
    before = [(put, get()) for get, put in blas_functions()]
    for put, _ in before:
        put(2)
    if blas() != {2}:
        pytest.skip("numpy and scipy have a BLAS whose threads cannot be set")
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
    for put, threads in before:
        put(threads)


def test_libraries_get_their_threads_back(two_threads):
    with one_thread():
        assert (torch.get_num_threads(), blas(), free_threads()) == (1, {1}, 2)
        with one_thread():
            assert free_threads() == 2
        assert (torch.get_num_threads(), blas()) == (1, {1})
    assert (torch.get_num_threads(), blas(), free_threads()) == (2, {2}, 1)
    with pytest.raises(InputError), one_thread():
        in_parallel([lambda: measure(Dense(torch.eye(1))), time.monotonic])
    assert (torch.get_num_threads(), blas(), free_threads()) == (2, {2}, 1)


def test_blocks_of_several_threads_that_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with one_thread():
            entered.set()
            leave.wait()

    other = threading.Thread(target=longer)
    with one_thread():
        other.start()
        entered.wait()
        assert free_threads() == 2
    assert (torch.get_num_threads(), blas()) == (2, {1})
    leave.set()
    other.join()
    assert blas() == {2}


def test_tasks_run_side_by_side_and_in_order(two_threads):
    barrier, seen = threading.Barrier(2), []

    def task(index):
        seen.append((torch.get_num_threads(), free_threads(), torch.is_inference_mode_enabled()))
        assert not torch.is_grad_enabled()
        # Passes only when two tasks wait at the same time.
        barrier.wait(timeout=60)
        return index

    for mode in (torch.no_grad, torch.inference_mode):
        seen.clear()
        with one_thread(), mode():
            assert in_parallel([lambda k=k: task(k) for k in range(4)]) == [0, 1, 2, 3]
        assert seen == [(1, 1, mode is torch.inference_mode)] * 4
    with one_thread():
        assert in_parallel([threading.get_ident] * 3, most=1) == [threading.get_ident()] * 3
    assert in_parallel([threading.get_ident] * 3) == [threading.get_ident()] * 3


def test_after_an_error_no_further_task_begins(two_threads):
    both, begun = threading.Barrier(2), []

    def failing():
        both.wait(timeout=60)
        raise InputError("the first head")

    def waiting():
        both.wait(timeout=60)
        time.sleep(0.5)

    with one_thread(), pytest.raises(InputError):
        in_parallel([failing, waiting, *[lambda: begun.append(time.sleep(0.5))] * 20])
    assert len(begun) < 20
