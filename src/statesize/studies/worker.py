"""A process that does runs: settings come as lines of JSON on stdin, rows go as lines of JSON to stdout."""

from __future__ import annotations

import json
import os
import signal
import sys

import torch

from statesize.errors import StatesizeError
from statesize.studies.grid import Run
from statesize.studies.run import carry_out


def answer(line: str) -> str:
    """Does the run of one line.

    Args:
        line: JSON of `Run.to_dict`.

    Returns:
        JSON: the rows, or the message of the error.
    """
    try:
        return json.dumps({"rows": carry_out(Run.from_dict(json.loads(line)))})
    except StatesizeError as error:
        return json.dumps({"error": str(error)})


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
