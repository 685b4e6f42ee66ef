"""Models of the Hugging Face hub by their names: which lie on this machine, and why the hub gives none."""

from __future__ import annotations

from pathlib import Path

from statesize.errors import FileError
from statesize.models.plugins import no_model

_PATIENCE = 2.0
"""Seconds for the hub to answer whether it has a model."""


def ask_hub(name: str, revision: str | None = None) -> None:
    """Refuse an id that the hub does not have, or cannot be asked for, at once: transformers retries for a minute."""
    if Path(name).exists() or snapshot(name, revision or "main"):
        return
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, revision=revision, timeout=_PATIENCE)
    except Exception as error:  # the clients of its versions have no error in common
        # A hub that is there and slow is left to transformers.
        if type(error).__name__ != "ReadTimeout":
            raise not_given(name, error) from error


def snapshot(name: str, revision: str) -> Path | None:
    """The folder of a model of the hub on this machine, once it was loaded; its name is the commit."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def not_given(name: str, error: BaseException) -> FileError:
    """The refusal of a name of which the hub gives no model."""
    reason = " ".join(str(error).split()).partition(". ")[0][:200]
    return FileError(no_model(name, f"is no folder, and the hub gives none: {reason}"))
