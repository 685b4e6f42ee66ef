import threading
import time

import pytest
import torch

from statesize.errors import InputError
from statesize.measurement.measurement import measure
from statesize.operators import Dense
from statesize.parallel.threads import free_threads, in_parallel, one_torch_thread


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_torch_gets_its_threads_back(two_threads):
    with one_torch_thread():
        assert (torch.get_num_threads(), free_threads()) == (1, 2)
        with one_torch_thread():
            assert free_threads() == 2
        assert torch.get_num_threads() == 1
    assert (torch.get_num_threads(), free_threads()) == (2, 1)
    with pytest.raises(InputError), one_torch_thread():
        in_parallel([lambda: measure(Dense(torch.eye(1))), time.monotonic])
    assert (torch.get_num_threads(), free_threads()) == (2, 1)


def test_blocks_of_several_threads_that_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with one_torch_thread():
            entered.set()
            leave.wait()

    other = threading.Thread(target=longer)
    other.start()
    entered.wait()
    with one_torch_thread():
        assert free_threads() == 2
    leave.set()
    other.join()
    assert torch.get_num_threads() == 2


def test_tasks_run_side_by_side_and_in_order(two_threads):
    barrier = threading.Barrier(2)
    seen = []

    def task(index):
        seen.append(
            (torch.get_num_threads(), free_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        )
        # Passes only when two tasks wait at the same time.
        barrier.wait(timeout=60)
        return index

    with one_torch_thread(), torch.no_grad():
        assert in_parallel([lambda k=k: task(k) for k in range(4)]) == [0, 1, 2, 3]
    assert seen == [(1, 1, False, False)] * 4
    seen.clear()
    with one_torch_thread(), torch.inference_mode():
        in_parallel([lambda: task(0), lambda: task(1)])
    assert seen == [(1, 1, False, True)] * 2


def test_one_thread_at_most(two_threads):
    with one_torch_thread():
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

    with one_torch_thread(), pytest.raises(InputError, match="the first head"):
        in_parallel([failing, waiting, *[lambda: begun.append(time.sleep(0.5))] * 20])
    assert len(begun) < 20
