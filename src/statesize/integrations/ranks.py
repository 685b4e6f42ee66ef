"""Measurements of a model that several ranks of torch.distributed train: the first one measures, the others wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from torch import distributed, nn

from statesize.adapters.models.sharded import sharded_units, unsharded_copy
from statesize.errors import StatesizeError

Result = TypeVar("Result")

# Seconds between two looks of a waiting rank: at first, and at most.
_NAP, _LONGEST_NAP = 0.001, 0.5
# Torch has no public name for the default store.
_torch: Any = distributed
_turns = count()


def on_first_rank(model: nn.Module, work: Callable[[nn.Module], Result]) -> Result | None:
    """Let the first rank measure a model while the others wait, however long that takes.

    All ranks call it. Of a model that `fully_shard` (FSDP2) has sharded, `work` is given a whole copy, which the ranks
    gather one unit at a time; it takes the memory of all weights once more on the first rank, in the dtype in which
    their layers run. Of any other, such as one that DDP holds, `work` is given the model itself. The others wait in no
    collective, so the time limit of the process group does not end a long measurement.

    Args:
        model: What this rank trains: a module, or the one that the outermost `fully_shard` was applied to.
        work: Takes the model, and is called on the first rank only.

    Returns:
        What `work` returns; None on the other ranks.

    Raises:
        StatesizeError: On the other ranks, if the work failed on the first one, where its own error is raised.

    Example:
        >>> profile = on_first_rank(model, lambda whole: ss.profile(whole, texts))  # doctest: +SKIP
    """
    results, sharded = list[Result](), bool(sharded_units(model))

    def run() -> str:
        results.append(work(unsharded_copy(model) if sharded else model))
        return ""

    def take_part() -> None:
        if sharded:
            unsharded_copy(model, keep=False)

    said_by_first(run, take_part)
    return results[0] if results else None


def said_by_first(work: Callable[[], str], meanwhile: Callable[[], object] | None = None) -> str:
    """What `work` says on the first rank, for all, which call this in the same order; its error is one on all.

    Args:
        work: Called on the first rank.
        meanwhile: Called on the others, before they wait.

    Returns:
        The text.

    Raises:
        StatesizeError: On the others, if the work failed on the first one.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return work()
    # The ranks have found each other by this store: it works with every backend.
    store, key = _torch.distributed_c10d._get_default_store(), f"statesize/{next(_turns)}"
    if distributed.get_rank() == 0:
        try:
            said = work()
        except BaseException as error:
            cause = str(error) if isinstance(error, StatesizeError) else f"{type(error).__name__}: {error}"
            store.set(key, f"!{cause}")
            raise
        store.set(key, f"={said}")
        return said
    if meanwhile is not None:
        meanwhile()
    nap = _NAP
    while not store.check([key]):
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)
    said = store.get(key).decode()
    if store.add(f"{key}/read", 1) == distributed.get_world_size() - 1:
        # All others have read it.
        store.delete_key(key)
        store.delete_key(f"{key}/read")
    if said[0] == "!":
        raise StatesizeError(f"The first rank did not measure the model: {said[1:]}")
    return said[1:]
