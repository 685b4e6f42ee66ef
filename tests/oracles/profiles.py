"""Profiles against each other."""

from __future__ import annotations

from statesize.profiling import Profile


def same(left: Profile, right: Profile) -> bool:
    """Whether two profiles are equal bit for bit, attributes too, but for the time that they took."""
    for name in ("/", *left.mixers):
        mine, other = (profile.tree[name].to_dataset(inherit=False).load() for profile in (left, right))
        mine.attrs.pop("seconds", None), other.attrs.pop("seconds", None)
        if not mine.identical(other):
            return False
    return left.mixers == right.mixers
