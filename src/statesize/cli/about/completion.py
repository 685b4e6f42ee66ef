"""`statesize --install-completion`: commands, options and their values at the press of a key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from statesize.cli.app import app


def install_completion(
    *, shell: Literal["bash", "fish", "powershell", "zsh"] | None = None, output: Path | None = None
) -> None:
    """Write a script that completes commands and options, and let the shell read it when it starts.

    Args:
        shell: The shell. Default: the one that runs this command.
        output: File for the script alone; the shell's own start-up file is then left as it is.

    Raises:
        InputError: The shell that runs this is not known.
        FileError: The script or the shell's own file cannot be written.
    """
    from cyclopts.completion.detect import ShellDetectionError

    from statesize.errors import FileError, InputError

    try:
        path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
    except ShellDetectionError as error:
        raise InputError("shell must be bash, fish, powershell or zsh, got another. Give --shell.") from error
    except OSError as error:
        raise FileError(
            f"cannot write {error.filename or output}: {error.strerror or error}. Give another path by --output"
        ) from error
    print(path)
