"""The process that a job runs in: the command line, which notes each file that it begins to put in place.

`python child.py REQUEST` is one job. `python child.py` without arguments imports what jobs need and forks a process for
each request on stdin: the same, without seconds of imports.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

COMMANDS = Path(__file__).parents[2] / "src" / "statesize" / "cli"
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root write to folders that nobody may write to.
_ABOVE_PERMISSIONS = (1 << 1) | (1 << 2)
_CAPABILITIES_3 = 0x20080522
IMPORTED = (
    "numba", "pyarrow.parquet", "tokenizers", "torch", "xarray", "statesize.profiling.run",
    "statesize.texts.documents", "statesize.report", "statesize.lab.studies.engine.run",
)  # fmt: skip
"""What a server imports, beside the commands, so that its children need not."""


def respect_permissions() -> None:
    """Take from this process what lets root ignore permissions; other users have nothing to lose."""
    library = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    if library.capget(header, data) == 0:
        # Effective, permitted and inheritable bits of the first 32 capabilities.
        data[0], data[1], data[2] = (word & ~_ABOVE_PERMISSIONS for word in data[:3])
        library.capset(header, data)


def note_files(path: str) -> None:
    """Write a line for each file that is moved to its place or appended to, before that is done."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "os.rename":
            os.write(notes, f"moved {os.fsdecode(given[1])}\n".encode())
        elif event == "open" and isinstance(given[1], str) and given[1].startswith("a"):
            os.write(notes, f"added {os.fsdecode(given[0])}\n".encode())

    sys.addaudithook(hook)


def work(request: dict[str, Any]) -> int:
    """Do a job as the command `statesize` does.

    Args:
        request: "arguments", "folder" to work in, files "stdout", "stderr" and "notes", and whether to
            "respect_permissions".

    Returns:
        Its exit code.
    """
    os.chdir(request["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    if request["respect_permissions"]:
        respect_permissions()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note_files(request["notes"])
    from statesize.cli import main

    return main(request["arguments"])


def _warm() -> None:
    """What every job would compute once more: torch's own imports, compiled engines, the libraries of a page."""
    import torch

    from statesize.lab.mixers import LanguageModel, ModelConfig
    from statesize.measurement.measurement import measure
    from statesize.operators import Recurrence
    from statesize.report.document import vega

    torch.set_num_threads(1)
    LanguageModel(ModelConfig(mixer="gla", vocabulary_size=8, width=4, heads=1, layers=1), torch.Generator())
    ones = torch.ones(1, 1, 8, 3)
    measure(Recurrence(A=ones / 2, B=ones, C=ones))
    vega()


def serve() -> int:
    """Answer each line of JSON: a request with the number of its process, a number with how that process ended.

    That is its exit code and its seconds of processor time.

    Returns:
        An exit code; in a forked process that of its job.
    """
    commands = (".".join(path.relative_to(COMMANDS).with_suffix("").parts) for path in COMMANDS.rglob("[a-z]*.py"))
    for name in (*IMPORTED, *(f"statesize.cli.{command}" for command in commands)):
        __import__(name)
    _warm()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            _, status, used = os.wait4(asked, 0)
            print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]), flush=True)
            continue
        process = os.fork()
        if process == 0:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return work(asked)
        print(process, flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
    sys.exit(work(json.loads(sys.argv[1])) if len(sys.argv) > 1 else serve())
