"""Processes that run one function together, as the ranks of a training do, and the models that they share."""

from __future__ import annotations

import copy
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from oracles.attention_models import attention_model
from oracles.tiny_families import tiny
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from statesize.lab import zoo

_SECONDS = 200
# What its children find imported: they start in a few milliseconds.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["oracles.rank_work"])


def on_ranks(work: Callable[..., Any], *arguments: Any, count: int = 2, limit: float = 1800) -> list[Any]:
    """What each rank returned, or its error; None for one that died. Collectives may take so many seconds."""
    # The server of the processes knows the path of Python's modules from the environment alone.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ends = [_SERVER.Pipe(duplex=False) for _ in range(count)]
    processes = [
        _SERVER.Process(target=_run, args=(work, arguments, rank, count, limit, store.port, ends[rank][1]), daemon=True)
        for rank in range(count)
    ]
    for process, (_, sending) in zip(processes, ends, strict=True):
        process.start()
        sending.close()
    said = list[Any]()
    for process, (receiving, _) in zip(processes, ends, strict=True):
        try:
            said.append(receiving.recv() if receiving.poll(_SECONDS) else "it hangs")
        except EOFError:
            said.append(None)
        process.kill()
        process.join()
        process.close()
        receiving.close()
    return said


def _run(
    work: Callable[..., Any],
    arguments: Sequence[Any],
    rank: int,
    count: int,
    limit: float,
    port: int,
    sending: Any,
) -> None:
    torch.set_num_threads(1)
    # As torchrun says it to trainers.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_RUN_ID": "tests"}
    store = distributed.TCPStore("127.0.0.1", port, is_master=False)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=limit), store=store, rank=rank, world_size=count)
    try:
        sending.send(work(*arguments))
    except BaseException as error:
        traceback.print_exc()
        sending.send((type(error).__name__, str(error)))
    # Without the handlers of an orderly end, which would wait for ranks that have died.
    os._exit(0)


def whole_model(family: str) -> nn.Module:
    """A small random model, the same on each rank."""
    torch.manual_seed(0)
    if family in ("llama", "gpt2"):
        model = attention_model(family).train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        return model
    return zoo.load(family)[0].train() if family in zoo.names() else tiny(family).train()


def sharded(model: nn.Module, policy: torch.dtype | None = None) -> nn.Module:
    """A copy of a model that fully_shard has shared out among all ranks."""
    return shard(copy.deepcopy(model), policy)


def shard(model: nn.Module, policy: torch.dtype | None = None) -> nn.Module:
    """Share a model out among all ranks, each layer a unit."""
    options: dict[str, Any] = {"mesh": init_device_mesh("cpu", (distributed.get_world_size(),))}
    if policy is not None:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=policy)
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    for layer in max(lists, key=len):
        fully_shard(layer, **options)
    return fully_shard(model, **options)


def in_lower_precision(model: nn.Module, policy: torch.dtype | None) -> nn.Module:
    """A copy whose parameters have a dtype, as those that fully_shard gathers; buffers stay as they are."""
    model = copy.deepcopy(model)
    for parameter in model.parameters() if policy is not None else ():
        parameter.data = parameter.data.to(policy)
    return model
