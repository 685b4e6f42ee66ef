"""Ctrl-C waits while something is changed or put back, and is never lost."""

import contextlib
import signal
import sys
import threading

import pytest
import torch
from torch import overrides

from statesize.adapters.replaced import interrupts_held


def press():
    signal.raise_signal(signal.SIGINT)


def interrupted(run):
    """The steps that are taken before an interrupt is raised."""
    steps = []
    with pytest.raises(KeyboardInterrupt):
        run(steps.append)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return steps


def test_an_interrupt_waits_until_it_is_let_through():
    def run(step):
        with interrupts_held() as interrupts:
            press()
            step("set up")
            with interrupts.let_through():
                step("ran")

    assert interrupted(run) == ["set up"]


def test_it_comes_at_once_where_it_is_let_through_and_a_second_one_after_the_end():
    def run(step):
        with interrupts_held() as interrupts:
            try:
                with interrupts.let_through():
                    press()
                    step("ran on")
            except KeyboardInterrupt:
                press()
                step("put back")

    assert interrupted(run) == ["put back"]


def test_what_an_interrupt_unwinds_is_not_interrupted_again():
    def run(step):
        with interrupts_held() as interrupts, interrupts.let_through():
            try:
                press()
            finally:
                press()
                step("put back")

    assert interrupted(run) == ["put back"]


def test_one_that_nothing_let_through_comes_at_the_end():
    def run(step):
        with interrupts_held():
            press()
            step("done")

    assert interrupted(run) == ["done"]


def test_ignored_interrupts_stay_ignored_and_other_threads_have_none():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held() as interrupts, interrupts.let_through():
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def run():
        with interrupts_held() as interrupts, interrupts.let_through():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("name", ["__enter__", "__exit__", "_pop_mode_temporarily", "handle_torch_function"])
def test_one_that_comes_while_torch_switches_modes_waits(name):
    places = []

    def run(step):
        with interrupts_held() as interrupts, overrides.BaseTorchFunctionMode(), interrupts.let_through():

            def trace(frame, event, argument):
                files = {frame.f_code.co_filename, frame.f_back.f_code.co_filename}
                if not places and frame.f_code.co_name == name and overrides.__file__ in files:
                    places.append(frame.f_code.co_filename)
                    interrupts.arrived(signal.SIGINT, frame)
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                torch.functional.split(torch.zeros(4), 2)
                step("ran")
            finally:
                sys.settrace(before)

    assert interrupted(run) == ["ran"]
    assert places[0] in (overrides.__file__, contextlib.__file__)
    assert not overrides._get_current_function_mode_stack()
