"""The command line: one command a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from statesize.errors import StatesizeError
from statesize.version import __version__

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

app = App(
    name="statesize",
    help="Measure how much of its memory a sequence model really uses: the effective state-size (ESS).",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
# By name, because the commands bring torch and altair with them, which --help and --version need not wait for.
app.command("statesize.cli.demo:demo", name="demo", help="Profile the bundled models and write a report.")
app.command("statesize.cli.profile:profile", name="profile", help="Profile a model over a text.")
app.command("statesize.cli.report:report", name="report", help="Write the HTML report of a saved profile.")
app.command("statesize.cli.train:train", name="train", help="Train a small language model.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; None takes it from the process.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        app(
            sys.argv[1:] if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(f"{_one_line(str(error))} See statesize --help.", WRONG_USAGE)
    except StatesizeError as error:
        return _fail(_one_line(str(error)), FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written after the last complete result", INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has gone; what the interpreter flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return 0


def _fail(message: str, code: int) -> int:
    print(f"statesize: error: {message}", file=sys.stderr)
    return code


def _one_line(message: str) -> str:
    return " ".join(message.split())
