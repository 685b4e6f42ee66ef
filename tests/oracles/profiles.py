"""Profiles against each other."""

from __future__ import annotations

from statesize.profiling import Profile


# Of a profile that was stored while it was measured.
_STORED = ("weights_sha256", "run_sha256")


def same(left: Profile, right: Profile) -> bool:
    """Whether two profiles are equal bit for bit, attributes too, but for the time and digests that one does not have."""
    for name in ("/", *left.mixers):
        mine, other = (profile.tree[name].to_dataset(inherit=False).load() for profile in (left, right))
        left_out = {"seconds"} | {name for attrs in (mine.attrs, other.attrs) for name in _STORED if not attrs.get(name)}
        for dataset in (mine, other):
            dataset.attrs = {name: value for name, value in dataset.attrs.items() if name not in left_out}
        if not mine.identical(other):
            return False
    return left.mixers == right.mixers
