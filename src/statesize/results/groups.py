"""The table of groups: what heads that share a cache need together."""

from __future__ import annotations

from statesize.results.protocol import Profiled
from statesize.results.summary import GroupRow, group_row


def group_rows(profile: Profiled) -> list[GroupRow]:
    """One row a mixer whose heads share what it stores."""
    rows: list[GroupRow] = []
    for name in profile.mixers:
        group = profile.group(name)
        if group is not None:
            others = [profile.mixer(other) for other in profile.mixers if profile.mixer(other).attrs["cache"] == name]
            rows.append(group_row([*others, profile.mixer(name)], group, profile.model, name))
    return rows
