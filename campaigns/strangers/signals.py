"""Signals to commands that are no jobs of the faults: at any moment from their start to their end."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from campaigns.faults.processes import ENVIRONMENT

COMMANDS = {
    "train": ("train", "text", "--mixer", "gla", "--text", "TEXT", "--output", "OUT", "--steps", "40", "--batch", "1"),
    "profile": ("profile", "PROFILE", "--html", "OUT"),
    "compare": ("compare", "PROFILE", "PROFILE", "--html", "OUT"),
}
"""Commands by name."""

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_UGLY = re.compile(r"Traceback|Exception ignored|Fatal Python|core dumped")
_PROGRAM = "import sys; from statesize.cli import main; sys.exit(main())"
LONGEST = 120.0


def strike(name: str, folder: Path, number: int, after: float) -> str:
    """Start a command, send it a signal after so many seconds, and wait; what is wrong with its end."""
    places = {"TEXT": "text.txt", "PROFILE": "profile"}
    words = [
        str(folder / places[word]) if word in places else word.replace("OUT", str(folder / "out"))
        for word in COMMANDS[name]
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    time.sleep(after)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"still there {LONGEST:.0f} s after the signal"
    # Before the command line is read, the interpreter itself ends as Python does.
    code = process.returncode
    if code not in {0, CODES[signal.Signals(number)], -number}:
        return f"exit code {code}: {errors[-400:]}"
    begun = "statesize: error: " in errors
    return f"stderr is not plain: {errors[-800:]}" if begun and _UGLY.search(errors) else ""


def moment(chance: random.Random, longest: float) -> float:
    """Seconds, as often in the first as in the last half of a run."""
    return chance.uniform(0.5, longest)
