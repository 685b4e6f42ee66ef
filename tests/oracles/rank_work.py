"""Processes that run one function together, as the ranks of a training do, their models, and what tests let them do."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from oracles.attention_models import attention_model
from oracles.profiles import same
from oracles.tiny_families import tiny
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import statesize as ss
from statesize import errors
from statesize.integrations.probe import Probe, Probing
from statesize.integrations.ranks import on_first_rank
from statesize.lab import zoo
from statesize.measurement.settings import Settings

IDS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(1))
FEW = Settings(positions=4)
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


def held(how: str, family: str = "llama", policy: torch.dtype | None = None) -> nn.Module:
    """A model that the ranks share out, or that DDP holds on each."""
    model = whole_model(family)
    return shard(model, policy) if how == "sharded" else nn.parallel.DistributedDataParallel(model)


class Training:
    """A training with a loop of its own."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.optimizer = model, torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(self) -> float:
        """The loss of a step."""
        loss = nn.functional.cross_entropy(self.model(IDS).logits.float().flatten(0, 1), IDS.flatten())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss)

    def weights(self) -> list[torch.Tensor]:
        """All weights, whole."""
        whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in self.model.parameters()]
        return [one.detach() for one in whole]


def readings(family: str, policy: torch.dtype | None) -> dict[str, Any]:
    """How far what the first rank reads of a sharded model is from what is read of the whole one, before and later."""
    plain, model = whole_model(family), held("sharded", family, policy)
    # As those that fully_shard gathers; buffers stay as they are.
    for parameter in plain.parameters() if policy is not None else ():
        parameter.data = parameter.data.to(policy)
    works = [lambda whole: ss.profile(whole, IDS, settings=FEW), Probe(IDS, settings=FEW).measure]
    found = [on_first_rank(model, work) for work in works]
    first = distributed.get_rank() == 0
    if any(one is None for one in found):
        return {"first": first}
    expected = [work(plain) for work in works]
    equal = [same(one, other, ("source", "precision")) for one, other in zip(found, expected, strict=True)]
    precision = [one.mixer(one.mixers[0]).attrs["precision"] for one in (found[0], expected[0])]
    return {"first": first, "equal": equal, "precision": precision}


def trained(how: str, family: str, policy: torch.dtype | None = None) -> dict[str, Any]:
    """Whether losses and weights after five steps are the same bits with a reading at each step as without."""
    without, with_readings = Training(held(how, family, policy)), Training(held(how, family, policy))
    probing, read, losses = Probing(Probe(IDS, every=1, share=math.inf, settings=FEW)), [], []
    for step in range(5):
        with torch.inference_mode(step == 2):
            read.append(probing.step(with_readings.model, step) is not None)
        losses.append((without.step(), with_readings.step()))
    weights = zip(without.weights(), with_readings.weights(), strict=True)
    return {
        "read": read,
        "losses": all(one == other for one, other in losses) and losses[0] != losses[-1],
        "weights": all(torch.equal(one, other) for one, other in weights),
    }


def failing(how: str, fault: str) -> list[Any]:
    """The errors of a measurement that fails on the first rank, and whether later ones and the training are as ever."""
    model = held(how, "gpt2")
    training, without = Training(model), Training(held(how, "gpt2"))
    losses = [(training.step(), without.step())]

    def work(whole: nn.Module) -> None:
        if fault == "interrupt":
            raise KeyboardInterrupt
        ids = torch.zeros(1, 99, dtype=torch.long) if fault == "text" else IDS
        Probe(ids).measure(whole)
        raise ZeroDivisionError("not mine")

    error = ""
    try:
        on_first_rank(model, work)
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    again = on_first_rank(model, lambda whole: Probe(IDS).measure(whole).mixers)
    losses += [(training.step(), without.step()) for _ in range(2)]
    return [error, again is not None, all(one == other for one, other in losses)]


def refused(how: str) -> str:
    """The error of a model that is shared out otherwise, or that is given as it is to what needs the whole."""
    mesh, model = init_device_mesh("cpu", (2,)), whole_model("llama")
    call = partial(Probe(IDS).measure, model)
    if how == "fsdp1":
        model.model.layers[0] = FullyShardedDataParallel(model.model.layers[0], device_id=torch.device("cpu"))
    elif how == "parallel":
        plan = {"self_attn.q_proj": ColwiseParallel(), "self_attn.o_proj": RowwiseParallel()}
        parallelize_module(model.model.layers[0], mesh, plan)
    elif how == "pipeline":
        call = partial(ss.profile, PipelineStage(model, distributed.get_rank(), 2, torch.device("cpu")), IDS)
    elif how == "zero":
        for number, parameter in enumerate(model.parameters()):
            parameter.ds_id = number
    else:
        call = partial(ss.profile, shard(model), IDS)
    try:
        call()
    except errors.StatesizeError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def by_lightning(folder: str, shared: bool) -> list[Any]:
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
    probe = Probe(IDS, every=2, share=math.inf, settings=FEW)
    module, callback = Causal(), StateSizeCallback(probe)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=1, default_root_dir=folder, callbacks=[callback],
        use_distributed_sampler=False, **quiet,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(IDS.repeat(4, 1), batch_size=2))
    return [trainer.is_global_zero, module.losses]


def by_trainer(folder: str, shared: bool) -> list[Any]:
    """The same of the Trainer of transformers, whose model accelerate has sharded."""
    from transformers import Trainer, TrainingArguments

    from statesize.integrations.transformers import StateSizeCallback

    arguments = TrainingArguments(
        folder, max_steps=4, per_device_train_batch_size=2, learning_rate=0.1, optim="sgd", logging_steps=1,
        lr_scheduler_type="constant", max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
        dataloader_pin_memory=False, disable_tqdm=True, seed=5,
    )  # fmt: skip
    probe = Probe(IDS, every=2, share=math.inf, settings=FEW)
    data = [{"input_ids": row, "labels": row} for row in IDS.repeat(8, 1)]
    model = whole_model("llama")
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[StateSizeCallback(probe)])
    if shared:
        # accelerate shards on accelerators only; this is what its `prepare` does there.
        trainer.accelerator.prepare_model = lambda model, **_: model
        shard(model)
    trainer.train()
    return [trainer.is_world_process_zero(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]]
