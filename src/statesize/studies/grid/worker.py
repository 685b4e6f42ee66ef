"""A process that does runs: settings come as lines of JSON on stdin, rows go as lines of JSON to stdout."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from typing import Any

import torch

from statesize.errors import InputError, StatesizeError
from statesize.studies.grid.grid import Run
from statesize.studies.grid.run import carry_out
from statesize.studies.grid.user_code import UserModule, load_module


def request(run: Run, module: UserModule | None) -> str:
    """The line that asks for a run.

    Args:
        run: The run.
        module: What registers mixers and tasks of one's own.

    Returns:
        JSON.
    """
    return json.dumps({"run": run.to_dict(), "module": module and dataclasses.asdict(module)})


def answer(line: str) -> str:
    """Does the run of one line.

    Args:
        line: From `request`.

    Returns:
        JSON: the rows, or the message of the error.
    """
    asked = json.loads(line)
    try:
        if asked["module"] is not None:
            load_module(UserModule(**asked["module"]))
        return json.dumps({"rows": carry_out(_run(asked["run"]))})
    except StatesizeError as error:
        return json.dumps({"error": str(error)})
    except Exception as error:  # a user's own mixer may raise anything, and would fail again
        return json.dumps({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def _run(values: dict[str, Any]) -> Run:
    try:
        return Run.from_dict(values)
    except InputError as error:
        raise InputError(
            f"{error}. Worker processes know mixers and tasks of your own from a module only, --module FILE; without"
            " one, do the runs in this process (workers = 1)"
        ) from error


def main() -> None:
    """Answers lines until stdin ends, which it does when the process that started this one is gone."""
    # Ctrl-C goes to all processes of a terminal; the one that started this one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    for line in sys.stdin:
        try:
            print(answer(line), file=answers, flush=True)
        except BrokenPipeError:
            # The process that asked is gone; nothing is left to tell it.
            os._exit(1)


if __name__ == "__main__":
    main()
