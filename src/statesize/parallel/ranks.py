"""Ranks of torch.distributed that measure one model: whether all of them take part, and what each has to say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from torch import distributed

from statesize.errors import StatesizeError

LIMIT = timedelta(seconds=10)
"""How long the first rank waits for the last one."""

_turns: dict[str, int] = {}


class RankError(StatesizeError):
    """Ranks that measure one model do not do the same, or one of them has ended."""


def exchange(ranks: Sequence[int], message: str) -> list[str]:
    """What each of some ranks says, in their order; an error on all that came where one does not come in time.

    The messages go through the store by which the ranks have found each other: it works with every backend, and no
    collective is left hanging.

    Args:
        ranks: The ranks.
        message: What this one says.

    Returns:
        A message of each.
    """
    try:
        # Torch has no public name for it.
        store = cast("Any", distributed).distributed_c10d._get_default_store()
        return _exchange(store, tuple(ranks), message)
    except RuntimeError as error:
        gone = ended(error)
        raise gone from error


def ended(error: BaseException) -> RankError:
    """What is raised where a rank is gone."""
    # Gloo names a line of its source before, and gives advice after it.
    cause = str(error).strip().partition("\n")[0].rpartition("] ")[2].partition(". ")[0]
    return RankError(
        f"All ranks that hold the model must run until it is measured, got one that has ended ({cause or error}). Its "
        "own output says why; start all of them again."
    )


def is_of_ranks(error: BaseException) -> bool:
    """Whether an error comes from the communication of ranks."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _exchange(store: Any, ranks: tuple[int, ...], message: str) -> list[str]:
    folder = f"statesize/{hashlib.sha256(repr(ranks).encode()).hexdigest()[:16]}"
    own, turn = distributed.get_rank(), _turns.get(folder, 0)
    while store.check([f"{folder}/{turn}/late"]):
        # Others have waited in vain, and come next time.
        turn += 1
    _turns[folder] = turn + 1
    key = f"{folder}/{turn}"
    store.set(f"{key}/{own}", message)
    # One verdict for all: who comes last and who waits no longer may do so at the same time.
    if store.add(f"{key}/came", 1) == len(ranks):
        verdict = store.compare_set(f"{key}/verdict", "", "all")
    else:
        try:
            store.wait([f"{key}/verdict"], LIMIT)
            verdict = store.get(f"{key}/verdict")
        except distributed.DistStoreError:
            verdict = store.compare_set(f"{key}/verdict", "", "late")
    if verdict == b"late":
        store.set(f"{key}/late", "")
        missing = [rank for rank in ranks if not store.check([f"{key}/{rank}"])]
        raise RankError(
            f"All ranks that hold the model ({_listed(ranks)}) must measure it together, got no call on rank "
            f"{_listed(missing)} within {LIMIT.seconds} s: it makes another call, or has ended. Make the same call on "
            "each of them, and log on one."
        )
    said = [store.get(f"{key}/{rank}").decode() for rank in ranks]
    # All have come to this turn, so none reads the last one any more.
    store.delete_key(f"{folder}/{turn - 1}/{own}")
    return said


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
