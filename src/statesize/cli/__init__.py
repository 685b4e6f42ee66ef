"""The command line: one command per file."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from statesize.io.kept import FOLDERS, kept

FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class _Terminated(BaseException):
    """SIGTERM came."""


_ENDS = {signal.SIGINT: ("interrupted", INTERRUPTED), signal.SIGTERM: ("terminated", TERMINATED)}


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
    FOLDERS.clear()
    try:
        with _signals():
            return _run(sys.argv[1:] if arguments is None else list(arguments))
    except (KeyboardInterrupt, _Terminated) as error:
        ended, code = _ENDS[signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT]
        return _fail(f"{ended}; {kept()}", code)
    except OSError as error:
        # An error of a file bears its name; stdout has none.
        if error.filename is not None:
            return _fail(f"{os.fsdecode(error.filename)} cannot be used: {error.strerror or error}", FAILED)
        # What the interpreter flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return FAILED
        return _fail(f"the output cannot be written: {error.strerror or error}", FAILED)


def _run(arguments: list[str]) -> int:
    # Imported here, because an interrupt may come while these are read.
    from cyclopts import CycloptsError

    from statesize.cli.commands import app
    from statesize.cli.shared.printing import begin
    from statesize.errors import InputError, StatesizeError

    begin(arguments)
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
        return WRONG_USAGE if group.subgroup(InputError) else FAILED
    return 0


def _show_warning(
    usual: Callable[..., None], message: Warning, category: type[Warning], filename: str, *rest: Any
) -> None:
    """Print warnings of this package as errors are printed, without the line of code."""
    from statesize.errors import StatesizeWarning

    if issubclass(category, StatesizeWarning) or "statesize" in Path(filename).parts:
        _tell("warning", str(message))
    else:
        usual(message, category, filename, *rest)


@contextmanager
def _signals() -> Generator[None]:
    """SIGTERM, by which batch systems and machines that shut down end a process, unwinds it as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            # What it unwinds must not be interrupted again.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _importing(frame):
            # A compiled module swallows what is raised while it is imported, or aborts the process.
            ended, code = _ENDS[signal.Signals(number)]
            os.write(2, f"statesize: error: {ended}; {kept()}\n".encode())
            os._exit(code)
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    here = threading.current_thread() is threading.main_thread()
    ours = [number for number, handler in usual.items() if here and signal.getsignal(number) == handler]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _fail(message: str, code: int) -> int:
    _tell("error", message)
    return code


def _tell(kind: str, message: str) -> None:
    from statesize.io.text import printable

    print(f"statesize: {kind}: {printable(' '.join(message.split()))}", file=sys.stderr)
