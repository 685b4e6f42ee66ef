"""What is left of a run that is interrupted, and the command that goes on from there."""

from pathlib import Path

FOLDERS: dict[Path, str] = {}
"""Folders in which this process keeps what is finished, each with the command that goes on from it."""


def kept() -> str:
    """What is kept and how to go on, as the end of a message."""
    commands = {folder: command for folder, command in FOLDERS.items() if any(folder.glob("[!.]*"))}
    if not commands:
        return "nothing was kept"
    return f"what is finished is in {', '.join(map(str, commands))}; {commands.popitem()[1]} goes on from there"
