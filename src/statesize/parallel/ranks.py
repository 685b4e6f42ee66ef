"""Ranks of torch.distributed that measure one model: whether all of them take part, and what each has to say."""

from __future__ import annotations

import ctypes
import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch
from torch import Tensor, distributed

from statesize import errors
from statesize.errors import StatesizeError

LIMIT = timedelta(seconds=10)
"""How long the first rank waits for the last one."""

# How long a rank may take for its share.
_LONGEST = timedelta(days=7)
# Seconds between two looks whether the others are ready, and looks between two whether one of them has failed.
_NAP, _NAPS = 0.001, 200
# Torch has no public names for the default store and the options of collectives.
_torch: Any = distributed
_turns: dict[str, int] = {}
# Process groups of gloo, each until all have met again: one that is let go before fails those that still connect.
_connected: dict[tuple[int, ...], Any] = {}


class RankError(StatesizeError):
    """Ranks that measure one model do not do the same, or one of them has ended."""


def exchange(ranks: Sequence[int], message: str) -> list[str]:
    """What each of some ranks says, in their order; a RankError on all that came where one does not come in time."""
    # The messages go through the store by which the ranks have found each other: it works with every backend, and no
    # collective is left hanging.
    folder, own, store = _folder(ranks), distributed.get_rank(), _torch.distributed_c10d._get_default_store()
    turn = _turns.get(folder, 0)
    try:
        while store.check([f"{folder}/{turn}/late"]):
            # Others have waited in vain, and come next time.
            turn += 1
        _turns[folder], key = turn + 1, f"{folder}/{turn}"
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
        if verdict == b"all":
            said = [store.get(f"{key}/{rank}").decode() for rank in ranks]
            # All have come to this turn, so none reads the last one any more.
            store.delete_key(f"{folder}/{turn - 1}/{own}")
            return said
        store.set(f"{key}/late", "")
        missing = [rank for rank in ranks if not store.check([f"{key}/{rank}"])]
    except RuntimeError as error:
        raise ended(error) from error
    raise RankError(
        f"All ranks that hold the model ({_listed(ranks)}) must measure it together, got no call on rank "
        f"{_listed(missing)} within {LIMIT.seconds} s: it makes another call, or has ended. Make the same call on "
        "each of them, and log on one."
    )


@dataclass(frozen=True)
class Replicas:
    """All ranks of torch.distributed, each of which holds the same model whole, as DDP trains it.

    All of them make the same call; each measures some of the layers, and has the numbers of all.

    Example:
        >>> profile(model, ids, executor=Replicas())  # doctest: +SKIP
    """

    @property
    def ranks(self) -> tuple[int, ...]:
        """Their numbers; none where there is one process."""
        count = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
        return tuple(range(count)) if count > 1 else ()


class Team:
    """Ranks that measure one model, each of them some of its mixers; without others, a process that measures alone.

    Attributes:
        count: How many they are.
        own: The place of this one among them.
    """

    def __init__(self, ranks: tuple[int, ...] = ()) -> None:
        self.ranks, self.count = ranks, max(1, len(ranks))
        self.own = ranks.index(distributed.get_rank()) if ranks else 0
        self._store: Any = None
        # Where it stands why one of them has left.
        self._left = ""

    def meet(self, message: str) -> list[str]:
        """What each says before they begin; they are connected by gloo, whatever the backend of the training."""
        said, folder = exchange(self.ranks, message), _folder(self.ranks)
        # All have come to the same turn.
        group, self._store = f"{folder}/group/{_turns[folder]}", _torch.distributed_c10d._get_default_store()
        self._left = f"{group}/left"
        try:
            within = _torch.PrefixStore(group, self._store)
            _connected[self.ranks] = distributed.ProcessGroupGloo(within, self.own, self.count, LIMIT)
        except RuntimeError as error:
            raise ended(error) from error
        return said

    def all(self, value: bytes) -> list[bytes]:
        """What each has, in their order, as soon as all have it; raises what another has raised, or its end."""
        if self.count == 1:
            return [value]
        sizes = [int(size) for size in self._gather(torch.tensor([len(value)]))]
        padded = torch.frombuffer(bytearray(value.ljust(max(1, *sizes), b"\0")), dtype=torch.uint8)
        return [bytes(one[:size].numpy()) for one, size in zip(self._gather(padded), sizes, strict=True)]

    def leave(self, error: BaseException) -> None:
        """Tell the others what has ended this one's work."""
        # A group that is let go waits for the others first.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_connected[self.ranks]))
        kind = next((one.__name__ for one in type(error).__mro__ if vars(errors).get(one.__name__) is one), "")
        text = str(error)
        if not kind:
            text = (
                f"All ranks that hold the model must run until it is measured, got {type(error).__name__} on rank "
                f"{self.ranks[self.own]}{f': {text}' if text else ''}. Its own output says where."
            )
        # The store may have ended with its rank.
        with suppress(RuntimeError):
            self._store.compare_set(self._left, "", json.dumps([kind, text]))

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in self.ranks]
        options = _torch.distributed_c10d.AllgatherOptions()
        options.timeout = _LONGEST
        try:
            work = _connected[self.ranks].allgather([found], [tensor], options)
            # Ctrl-C comes through a sleep, and not through `wait`.
            for look in count(1):
                if work.is_completed():
                    break
                time.sleep(_NAP)
                if not look % _NAPS:
                    self._raise_left()
            work.wait()
        except RuntimeError as error:
            with suppress(RuntimeError):
                self._raise_left()
            raise ended(error) from error
        return found

    def _raise_left(self) -> None:
        if self._store.check([self._left]):
            kind, text = json.loads(self._store.get(self._left))
            raise getattr(errors, kind, RankError)(text)


ALONE = Team()
"""A process that measures a model by itself."""


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


def _folder(ranks: Sequence[int]) -> str:
    return f"statesize/{hashlib.sha256(repr(tuple(ranks)).encode()).hexdigest()[:16]}"


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
