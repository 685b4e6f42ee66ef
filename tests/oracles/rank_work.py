"""What the ranks of the tests do; each function runs in a process of its own."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from oracles.ranks import in_lower_precision, shard, sharded, whole_model
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import statesize as ss
from statesize import errors
from statesize.integrations.probe import Probe
from statesize.measurement.settings import Settings
from statesize.parallel import ranks
from statesize.profiling import RayCluster, Replicas, work

IDS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(1))
_OF_THE_RUN = {"seconds", "source", "precision"}


def numbers(profile: ss.Profile) -> dict[str, Any]:
    """All that a profile holds, but for times and how the model ran."""
    nodes = {mixer: profile.mixer(mixer) for mixer in profile.mixers}
    facts: dict[str, Any] = {
        f"{mixer} {name}": node[name].values for mixer, node in nodes.items() for name in node.data_vars
    }
    facts |= {f"{mixer} {k}": v for mixer, node in nodes.items() for k, v in node.attrs.items() if k not in _OF_THE_RUN}
    return facts | {name: profile.tree.attrs[name] for name in ("model", "kernels", "skipped")}


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs in any bit."""
    keys = one.keys() | other.keys()
    return sorted(key for key in keys if repr(one.get(key)) != repr(other.get(key)) or not _equal(one[key], other[key]))


def _equal(one: Any, other: Any) -> bool:
    return not isinstance(one, np.ndarray) or (one.tobytes() == other.tobytes()) or one.dtype == object


def train(model: nn.Module, steps: int = 1) -> list[float]:
    """Losses of some steps of a training."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), list[float]()
    for _ in range(steps):
        output: Any = model(IDS)
        logits = output if isinstance(output, torch.Tensor) else output.logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), IDS.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def readings(family: str, policy: torch.dtype | None) -> dict[str, Any]:
    """How far what is read of a sharded model is from what is read of the whole one, and losses with and without."""
    plain, model = in_lower_precision(whole_model(family), policy), sharded(whole_model(family), policy)
    probe, settings = Probe(IDS, settings=Settings(positions=4)), Settings(positions=4)
    profiles = [ss.profile(one, IDS, settings=settings) for one in (model, plain)]
    found: dict[str, Any] = {"profile": same(*map(numbers, profiles))}
    found["precision"] = [profile.mixer(profile.mixers[0]).attrs["precision"] for profile in profiles]
    unread = train(sharded(whole_model(family), policy), 3)
    losses = train(model)
    found["probe"] = same(*(numbers(probe.measure(one)) for one in (sharded(whole_model(family), policy), plain)))
    probe.measure(model)
    losses += train(model)
    with torch.inference_mode():
        probe.measure(model)
    losses += train(model)
    return found | {"losses": losses == unread}


def quick() -> None:
    """Let a rank that waits for others give up soon."""
    ranks.LIMIT = timedelta(seconds=2)


def raised(call: Callable[[], object]) -> str:
    """The text of the error that a call raises; "" without."""
    try:
        call()
    except errors.StatesizeError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def lonely() -> list[Any]:
    """Errors of a call on rank 0 alone, twice, and what is read together after it."""
    quick()
    model, first = sharded(whole_model("llama")), distributed.get_rank() == 0
    errors = [raised(lambda: Probe(IDS).measure(model)) for _ in range(2 if first else 0)]
    distributed.barrier()
    return [errors, raised(lambda: Probe(IDS).measure(model)), train(model)]


def different(what: str) -> list[Any]:
    """The error where rank 1 has something else, then that of the same on both, and a step of the training."""
    quick()
    model, last = sharded(whole_model("llama")), distributed.get_rank() == 1
    ids = (IDS + 1 if what == "texts" else IDS[:1] if what == "fewer" else IDS) if last else IDS
    if what == "heads" and last:
        model.model.layers[1].mlp.probe_head = nn.Linear(32, 2)
    error = raised(lambda: ss.profile(model, ids, settings=Settings(positions=4)))
    if what == "heads" and last:
        del model.model.layers[1].mlp.probe_head
    return [error, raised(lambda: ss.profile(model, IDS, settings=Settings(positions=4))), train(model)]


def dying() -> str:
    """The error of rank 0 where rank 1 ends in the middle of a reading."""
    quick()
    model = sharded(whole_model("llama"))
    if distributed.get_rank() == 1:
        model.model.layers[1].self_attn.register_forward_hook(lambda *_: os._exit(1))
    return raised(lambda: Probe(IDS).measure(model))


def held(how: str, family: str = "llama") -> tuple[nn.Module, Replicas | None]:
    """A model that ranks share out or hold a replica of each, and the executor that they then need."""
    model = whole_model(family)
    return (sharded(model), None) if how == "sharded" else (nn.parallel.DistributedDataParallel(model), Replicas())


def while_measuring(act: Callable[[str], object]) -> None:
    """Let this rank do something before it measures a mixer of a name."""
    measure = work.measure_mixer

    def acting(item: Any, *rest: Any) -> Any:
        act(item.name)
        return measure(item, *rest)

    work.measure_mixer = acting


def shares(how: str, family: str, options: dict[str, Any]) -> list[Any]:
    """What this rank has measured of a model of all ranks, and what differs from the whole model."""
    model, executor = held(how, family)
    settings, names = Settings(positions=4, **options), list[str]()
    plain = ss.profile(whole_model(family), IDS, settings=settings)
    while_measuring(names.append)
    profile = ss.profile(model, IDS, settings=settings, executor=executor)
    return [names, sorted(profile.mixers), same(numbers(profile), numbers(plain))]


def failing(how: str, fault: str) -> list[Any]:
    """Errors where rank 1 fails over its share or rank 0 is interrupted while it waits; then a reading, and losses."""
    quick()
    model, executor = held(how)
    probe, last, faulty = Probe(IDS, executor=executor), distributed.get_rank() == 1, [True]

    def act(name: str) -> None:
        if not faulty[0]:
            return
        if fault == "waiting":
            # Rank 0 has measured its own by then.
            time.sleep(3 * last)
        elif last and fault == "death":
            os._exit(1)
        elif last:
            raise {"input": errors.InputError("too few tokens"), "interrupt": KeyboardInterrupt()}[fault]

    while_measuring(act)
    if fault == "waiting" and not last:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.alarm(2)
    interrupted, start, error = False, time.monotonic(), ""
    try:
        error = raised(lambda: probe.measure(model))
    except KeyboardInterrupt:
        interrupted = True
    took, faulty[0] = time.monotonic() - start, False
    if fault == "death":
        return [error, took < 10]
    distributed.barrier()
    return [error, interrupted, took < 10, raised(lambda: probe.measure(model)), train(model)]


def other_replicas(what: str) -> list[str]:
    """Errors of replicas that differ in something, and of a call on one rank alone."""
    quick()
    model, probe, rank = whole_model("llama"), Probe(IDS, executor=Replicas()), distributed.get_rank()
    weight = model.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        if what == "numbers":
            weight[0, 0] += rank
        elif what == "order":
            weight.copy_(weight.roll(rank, 0))
        else:
            model.config.rope_parameters["rope_theta"] += rank
    found = [raised(lambda: probe.measure(model))]
    distributed.barrier()
    return [*found, *(raised(lambda: probe.measure(model)) for _ in range(1 - distributed.get_rank()))]


class Normed(nn.Module):
    """Attention behind a norm by running means."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.BatchNorm1d(16), nn.MultiheadAttention(16, 2, batch_first=True)
        # Behind it lies what takes more bytes than the odd number of these.
        self.norm.register_buffer("mark", torch.ones(3, dtype=torch.uint8))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(hidden.shape[1], hidden.shape[1]).triu(1).bool()
        hidden = 3 * self.norm(hidden.mT).mT
        return self.attention(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]


def other_buffers() -> list[Any]:
    """What ranks read together whose running means differ, as in DDP behind a step, and alone; what they have then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(60, 16), Normed(), Normed())
    for layer in (model[1], model[2]):
        layer.norm.running_mean += distributed.get_rank()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    settings = Settings(positions=4)
    profiles = [ss.profile(model, IDS, settings=settings, executor=executor) for executor in (None, Replicas())]
    found = [[profile.mixer(name)["entropy"].values.tolist() for name in profile.mixers] for profile in profiles]
    return [*found, all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())]


def too_long() -> list[Any]:
    """The error of a text that the model cannot run, and whether the training goes on as without it."""
    model, unread = sharded(whole_model("gpt2")), train(sharded(whole_model("gpt2")), 2)
    losses = train(model)
    error = raised(lambda: Probe(torch.zeros(1, 99, dtype=torch.long)).measure(model))
    return [error, losses + train(model) == unread]


def refused(how: str) -> str:
    """The error of a model that is shared out otherwise."""
    mesh, model = init_device_mesh("cpu", (2,)), whole_model("llama")
    if how == "fsdp1":
        model.model.layers[0] = FullyShardedDataParallel(model.model.layers[0], device_id=torch.device("cpu"))
    elif how == "parallel":
        plan = {
            "model.layers.0.self_attn.q_proj": ColwiseParallel(),
            "model.layers.0.self_attn.o_proj": RowwiseParallel(),
        }
        parallelize_module(model, mesh, plan)
    elif how == "pipeline":
        stage = PipelineStage(model, distributed.get_rank(), 2, torch.device("cpu"))
        return raised(lambda: ss.profile(stage, IDS))
    elif how == "inner":
        model = sharded(model).model
    elif how == "zero":
        for number, parameter in enumerate(model.parameters()):
            parameter.ds_id = number
    elif how in ("truncate", "cache"):
        call = ss.truncate if how == "truncate" else ss.cache
        return raised(lambda: call(sharded(model), IDS.repeat(1, 10)))
    elif how == "output":
        return raised(lambda: ss.profile(sharded(model), IDS, output="nowhere"))
    elif how == "executor":
        return raised(lambda: ss.profile(sharded(model), IDS, executor=RayCluster()))
    return raised(lambda: Probe(IDS).measure(model))


def replicated() -> list[str]:
    """What differs in a reading of a model that DDP holds, on rank 0 alone."""
    plain, model = whole_model("llama"), nn.parallel.DistributedDataParallel(whole_model("llama"))
    if distributed.get_rank():
        return []
    return same(*(numbers(Probe(IDS, settings=Settings(positions=4)).measure(one)) for one in (model, plain)))


def by_lightning(folder: str, shared: bool, replicas: bool = False) -> list[Any]:
    """What the callback writes where Lightning trains a model that its strategy has sharded, and the last losses."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    from statesize.integrations.lightning import StateSizeCallback

    class Causal(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = whole_model("llama"), list[float]()

        def configure_model(self) -> None:
            if shared:
                shard(self.model)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            loss = self.model(batch, labels=batch).loss
            self.losses.append(float(loss))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    strategy = ModelParallelStrategy(2, 1) if shared else DDPStrategy()
    probe = Probe(
        IDS, every=2, share=math.inf, settings=Settings(positions=4), executor=Replicas() if replicas else None
    )
    module, callback = Causal(), StateSizeCallback(probe)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=1, default_root_dir=folder, callbacks=[callback],
        use_distributed_sampler=False, **quiet,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(IDS.repeat(4, 1), batch_size=2))
    return [trainer.is_global_zero, module.losses]


def by_trainer(folder: str, shared: bool, replicas: bool = False) -> list[Any]:
    """The same of the Trainer of transformers, whose model accelerate has sharded."""
    from transformers import Trainer, TrainingArguments

    from statesize.integrations.transformers import StateSizeCallback

    arguments = TrainingArguments(
        folder, max_steps=4, per_device_train_batch_size=2, learning_rate=0.1, optim="sgd", logging_steps=1,
        lr_scheduler_type="constant", max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
        dataloader_pin_memory=False, disable_tqdm=True, seed=5,
    )  # fmt: skip
    probe = Probe(
        IDS, every=2, share=math.inf, settings=Settings(positions=4), executor=Replicas() if replicas else None
    )
    data = [{"input_ids": row, "labels": row} for row in IDS.repeat(8, 1)]
    model = whole_model("llama")
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[StateSizeCallback(probe)])
    if shared:
        # accelerate shards on accelerators only; this is what its `prepare` does there.
        trainer.accelerator.prepare_model = lambda model, **_: model
        shard(model)
    trainer.train()
    return [trainer.is_world_process_zero(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]]
