"""The table of groups: what heads that share a cache need together."""

from __future__ import annotations

from statesize.results.protocol import Profiled
from statesize.results.summary import GroupRow, group_row


def group_rows(profile: Profiled) -> list[GroupRow]:
    """One row a mixer whose heads share what it stores."""
    pairs = ((name, profile.group(name)) for name in profile.mixers)
    return [group_row(profile.mixer(name), group, profile.model, name) for name, group in pairs if group is not None]
