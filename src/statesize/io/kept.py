"""What is left of a run that is interrupted: folders of finished parts, and the command that goes on from there."""

from __future__ import annotations

from pathlib import Path

FOLDERS: dict[Path, str] = {}
"""Folders in which this process keeps what is finished, and the command that goes on from each."""


def keep(folder: Path, command: str = "the same command") -> None:
    """Note a folder of finished parts."""
    FOLDERS[folder] = command


def kept() -> str:
    """What is kept and how to go on, as the end of a message."""
    commands = {folder: command for folder, command in FOLDERS.items() if any(folder.glob("[!.]*"))}
    if not commands:
        return "nothing was kept"
    return f"what is finished is in {', '.join(map(str, commands))}; {[*commands.values()][-1]} goes on from there"
