"""What a call must leave as it found it: its tensors, and the state that all code of a process shares."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def global_state() -> dict[str, object]:
    """Everything global that a numerical library may be tempted to change."""
    return {
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": str(np.random.get_state()),  # noqa: NPY002
        "python's random state": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 precision": torch.get_float32_matmul_precision(),
        "default device": str(torch.get_default_device()),
        "numpy's error state": np.geterr(),
        "warnings filters": list(warnings.filters),
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


def snapshot(tensors: Sequence[Tensor]) -> list[tuple[object, ...]]:
    """What a tensor is: numbers bit by bit, layout, gradient, and how often it was written to."""
    return [_facts(tensor) for tensor in tensors]


def _facts(tensor: Tensor) -> tuple[object, ...]:
    version = None if tensor.is_inference() else tensor._version
    about = (tensor.shape, tensor.dtype, tensor.layout, tensor.requires_grad, tensor.grad is None, version)
    if tensor.is_meta or tensor.layout != torch.strided:
        return about
    plain = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    numbers = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return (*about, tensor.stride(), tensor.data_ptr(), numbers)


class HangError(BaseException):
    """A call took too long; no Exception, so that nothing catches it on its way."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends what takes longer than so many seconds of processor time."""

    def give_up(*_: object) -> None:
        raise HangError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def watched(tensors: Sequence[Tensor], call: Callable[[], object], seconds: float) -> tuple[object, list[str]]:
    """A call, and what it changed that it must not, warnings that it let out included; its exception passes."""
    facts, state = snapshot(tensors), global_state()
    found: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        try:
            with time_limit(seconds):
                answer: object = call()
        except Exception as error:
            answer = error
        if list(warnings.filters) != filters:
            found.append("changed the warnings filters")
    found += [f"let out a warning: {warning.message}" for warning in told]
    now = global_state()
    found += [f"changed {name}" for name, before in state.items() if now[name] != before]
    if snapshot(tensors) != facts:
        found.append("changed an input tensor")
    return answer, found
