"""What two ranks save that share the layers of a model: `python -m benchmarks.shared_layers [--output FILE]`.

Seconds of the processor and of the clock on the wall, of one thread each, that `profile` takes on each process: alone,
of two replicas, and of the two shards of `fully_shard`, connected by gloo. Medians of three runs, made in turn.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

import statesize as ss
from benchmarks.cases import write_table
from statesize.profiling import Replicas

LAYERS, HEADS, WIDTH, LENGTH, POSITIONS = 8, 8, 256, 512, 64
TCPStore: Any = vars(distributed)["TCPStore"]
WAYS, ROUNDS = {"alone": 1, "replicas": 2, "shards": 2}, 3


def run(way: str, rank: int, port: int, times: Any) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape: Any = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = LlamaConfig(vocab_size=512, intermediate_size=2 * WIDTH, num_key_value_heads=HEADS // 2, **shape)
    model: Any = LlamaForCausalLM(config).eval()
    if WAYS[way] > 1:
        store = TCPStore("127.0.0.1", port, is_master=False)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=WAYS[way])
    if way == "shards":
        mesh = init_device_mesh("cpu", (WAYS[way],))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    ids = torch.randint(3, 500, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    executor = Replicas() if way == "replicas" else None
    # What is imported and compiled on first use.
    ss.profile(model, ids[:, :32], positions=4, executor=executor)
    if WAYS[way] > 1:
        distributed.barrier()
    wall, processor = time.perf_counter(), time.process_time()
    profile = ss.profile(model, ids, positions=POSITIONS, executor=executor)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    times.put((wall, processor, profile.tree.attrs["seconds"]))
    if WAYS[way] > 1:
        distributed.barrier()


def on_processes(way: str) -> list[tuple[float, float, float]]:
    """The times of each process."""
    start = multiprocessing.get_context("spawn")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    times = start.Queue()
    processes = [start.Process(target=run, args=(way, rank, store.port, times)) for rank in range(WAYS[way])]
    for process in processes:
        process.start()
    found = [times.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def rows() -> Iterator[dict[str, Any]]:
    """One row for each way."""
    found: dict[str, list[list[tuple[float, float, float]]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, times in found.items():
            times.append(on_processes(way))
    medians = {
        way: [statistics.median(max(one[kind] for one in some) for some in times) for kind in (0, 1)]
        for way, times in found.items()
    }
    for way, (wall, processor) in medians.items():
        alone = medians["alone"]
        shares = {"wall_share": wall / alone[0], "processor_share": processor / alone[1], "runs": found[way]}
        shape = {"way": way, "processes": WAYS[way], "layers": LAYERS, "length": LENGTH}
        yield {**shape, "wall": wall, "processor": processor, **shares}


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    line = (
        "{way:8} {processes} processes: {processor:.1f} s of the processor each ({processor_share:.2f} of alone), "
        "{wall:.1f} s on the wall ({wall_share:.2f})"
    )
    return write_table(rows(), line, __doc__, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
