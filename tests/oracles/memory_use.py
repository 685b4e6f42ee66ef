"""Calls that hold a known amount of memory; here, where a child process can import them."""

import os
import signal

import torch

from statesize.operators import Dense, Operator

MEBIBYTE = 2**20


def make(length: int) -> Operator:
    return Dense(torch.eye(length, dtype=torch.float64))


def nothing(operator: Operator | None = None) -> None:
    pass


def hold(operator: Operator, mebibytes: int) -> torch.Tensor:
    torch.ones(3 * mebibytes * MEBIBYTE // 8, dtype=torch.float64)
    return torch.ones(mebibytes * MEBIBYTE // 8, dtype=torch.float64)


def warm() -> None:
    hold(make(8), mebibytes=1)


def die(operator: Operator) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
