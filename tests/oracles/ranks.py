"""Processes that run one function together, as the ranks of a training do, and the models that they share."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from oracles.attention_models import attention_model
from oracles.tiny_families import tiny
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from statesize.lab import zoo

_RANKS = 2
_SECONDS = 200
# What its children find imported: they start in a few milliseconds.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["oracles.rank_work"])


def on_ranks(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What each of two ranks returned, or its error; None for one that died."""
    # The server of the processes knows the path of Python's modules from the environment alone.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started, said = [], list[Any]()
    for rank in range(_RANKS):
        receiving, sending = _SERVER.Pipe(duplex=False)
        process = _SERVER.Process(target=_run, args=(work, arguments, rank, store.port, sending), daemon=True)
        process.start()
        sending.close()
        started.append((process, receiving))
    for process, receiving in started:
        try:
            said.append(receiving.recv() if receiving.poll(_SECONDS) else "it hangs")
        except EOFError:
            said.append(None)
        process.kill()
        process.join()
        process.close()
        receiving.close()
    return said


def _run(work: Callable[..., Any], arguments: tuple[Any, ...], rank: int, port: int, sending: Any) -> None:
    torch.set_num_threads(1)
    # As torchrun says it to trainers.
    said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": _RANKS, "LOCAL_WORLD_SIZE": _RANKS, "GROUP_RANK": 0}
    said |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {name: str(value) for name, value in said.items()}
    store = distributed.TCPStore("127.0.0.1", port, is_master=False)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=_RANKS)
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


def shard(model: nn.Module, policy: torch.dtype | None = None) -> nn.Module:
    """Share a model out among all ranks, each layer a unit."""
    options: dict[str, Any] = {"mesh": init_device_mesh("cpu", (_RANKS,))}
    if policy is not None:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=policy)
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    for layer in max(lists, key=len):
        fully_shard(layer, **options)
    return fully_shard(model, **options)
