"""The command line: one command per file."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; None takes it from the process.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage or a refused argument, 130 interrupted, 143 terminated.
    """
    # Threads that wait sleep, or on a busy machine they take the processors that others need. Torch reads it when it is
    # imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt as interrupt:
        return _fail("; ".join(["interrupted", *getattr(interrupt, "__notes__", ())]), INTERRUPTED)
    except SystemExit as end:
        return _fail("; ".join(["terminated", *getattr(end, "__notes__", ())]), TERMINATED)
    except OSError as error:
        # An error of a file bears its name; stdout has none.
        if error.filename is not None:
            return _fail(f"{os.fsdecode(error.filename)} cannot be used: {error.strerror or error}", FAILED)
        # What the interpreter flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return FAILED
        return _fail(f"the output cannot be written: {error.strerror or error}", FAILED)


def _terminate(*_: object) -> None:
    """Unwind the process as Ctrl-C does, where a batch system or a machine that shuts down ends it by SIGTERM."""
    # A second SIGTERM must not interrupt the unwinding.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _run(arguments: list[str]) -> int:
    # Imported here, because an interrupt may come while these are read.
    from cyclopts import CycloptsError

    from statesize.cli.commands import app
    from statesize.errors import InputError, StatesizeError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            options: dict[str, Any] = {"exit_on_error": False, "print_error": False, "result_action": "return_value"}
            # What the command keeps in the context must not reach what follows in this process.
            copy_context().run(app, arguments, **options)
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(f"{error} See statesize {' '.join((*(error.command_chain or ()), '--help'))}.", WRONG_USAGE)
    except StatesizeError as error:
        return _fail(str(error), WRONG_USAGE if isinstance(error, InputError) else FAILED)
    except ExceptionGroup as group:
        for error in group.exceptions:
            _tell("error", str(error))
        return FAILED
    return 0


def _show_warning(usual: Callable[..., None], message: Warning, category: type[Warning], *place: Any) -> None:
    """Print warnings of this package as errors are printed, without the line of code."""
    from statesize.errors import StatesizeWarning

    if issubclass(category, StatesizeWarning):
        _tell("warning", str(message))
    else:
        usual(message, category, *place)


def _fail(message: str, code: int) -> int:
    _tell("error", message)
    return code


def _tell(kind: str, message: str) -> None:
    from statesize.io.text import printable

    print(f"statesize: {kind}: {printable(' '.join(message.split()))}", file=sys.stderr)
