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


@dataclass(frozen=True)
class _Group:
    """How some ranks are connected.

    Attributes:
        number: How many connections there were before.
        store: By which they have found each other.
        connected: A process group of gloo; None where they are to be connected anew.
    """

    number: int
    store: Any
    connected: Any = None


# Torch has no public names for the default store and the options of collectives.
_torch: Any = distributed
_turns: dict[str, int] = {}
_groups: dict[tuple[int, ...], _Group] = {}


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
        return _exchange(_default_store(), tuple(ranks), message)
    except RuntimeError as error:
        gone = ended(error)
        raise gone from error


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

    def meet(self, message: str) -> list[str]:
        """What each says before they begin; they are connected by gloo, whatever the backend of the training."""
        store = _default_store()
        known = _groups.get(self.ranks, _Group(0, store))
        said = [one.rpartition(" ") for one in exchange(self.ranks, f"{message} {known.number}")]
        numbers = {int(number) for *_, number in said}
        if len(numbers) > 1 or known.connected is None or known.store is not store:
            known = _groups[self.ranks] = _Group(max(numbers) + 1, store)
            within = _torch.PrefixStore(f"{_folder(self.ranks)}/group/{max(numbers)}", store)
            try:
                connected = distributed.ProcessGroupGloo(within, self.own, self.count, LIMIT)
            except RuntimeError as error:
                raise ended(error) from error
            _groups[self.ranks] = _Group(max(numbers), store, connected)
        return [text for text, *_ in said]

    def all(self, value: bytes) -> list[bytes]:
        """What each of them has, in their order, as soon as all have it.

        Args:
            value: What this one has.

        Returns:
            One of each.

        Raises:
            StatesizeError: What another one has raised meanwhile; a RankError if it has ended.
        """
        if self.count == 1:
            return [value]
        sizes = [int(size) for size in self._gather(torch.tensor([len(value)]))]
        padded = torch.frombuffer(bytearray(value.ljust(max(1, *sizes), b"\0")), dtype=torch.uint8)
        return [bytes(one[:size].numpy()) for one, size in zip(self._gather(padded), sizes, strict=True)]

    def leave(self, error: BaseException) -> None:
        """Tell the others what has ended this one's work; what they do together next begins anew."""
        known = _groups[self.ranks]
        if known.connected is None:
            return
        # A group that is let go waits for the others first.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(known.connected))
        _groups[self.ranks] = _Group(known.number + 1, known.store)
        kind = next((one.__name__ for one in type(error).__mro__ if vars(errors).get(one.__name__) is one), "")
        text = str(error)
        if not kind:
            text = (
                f"All ranks that hold the model must run until it is measured, got {type(error).__name__} on rank "
                f"{self.ranks[self.own]}{f': {text}' if text else ''}. Its own output says where."
            )
        # The store may have ended with its rank.
        with suppress(RuntimeError):
            known.store.compare_set(self._left(known), "", json.dumps([kind, text]))

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        known, found = _groups[self.ranks], [torch.empty_like(tensor) for _ in self.ranks]
        options = _torch.distributed_c10d.AllgatherOptions()
        options.timeout = _LONGEST
        try:
            work = known.connected.allgather([found], [tensor], options)
            # Ctrl-C comes through a sleep, and not through `wait`.
            for look in count(1):
                if work.is_completed():
                    break
                time.sleep(_NAP)
                if not look % _NAPS:
                    self._raise_left(known)
            work.wait()
        except RuntimeError as error:
            with suppress(RuntimeError):
                self._raise_left(known)
            raise ended(error) from error
        return found

    def _raise_left(self, known: _Group) -> None:
        if known.store.check([self._left(known)]):
            kind, text = json.loads(known.store.get(self._left(known)))
            raise getattr(errors, kind, RankError)(text)

    def _left(self, known: _Group) -> str:
        """Where it stands why one of them has left."""
        return f"{_folder(self.ranks)}/group/{known.number}/left"


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


def _exchange(store: Any, ranks: tuple[int, ...], message: str) -> list[str]:
    folder = _folder(ranks)
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


def _default_store() -> Any:
    return _torch.distributed_c10d._get_default_store()


def _folder(ranks: tuple[int, ...]) -> str:
    return f"statesize/{hashlib.sha256(repr(ranks).encode()).hexdigest()[:16]}"


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
