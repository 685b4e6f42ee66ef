"""Profiles against each other."""

from __future__ import annotations

from collections.abc import Collection

from statesize.profiling import Profile

# Attributes that only a stored profile has.
_STORED = ("weights_sha256", "run_sha256")


def same(left: Profile, right: Profile, but: Collection[str] = ()) -> bool:
    """Whether profiles are equal bit for bit, attributes too, but for times, some names, and digests that one lacks."""
    for name in ("/", *left.mixers):
        mine, other = (profile.tree[name].to_dataset(inherit=False).load() for profile in (left, right))
        lacked = {name for name in _STORED if not (mine.attrs.get(name) and other.attrs.get(name))}
        left_out = {"seconds", *but, *lacked}
        for dataset in (mine, other):
            dataset.attrs = {name: value for name, value in dataset.attrs.items() if name not in left_out}
        if not mine.identical(other):
            return False
    return left.mixers == right.mixers
