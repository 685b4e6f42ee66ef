"""Models that fully_shard (FSDP2) has shared out among ranks: their weights are gathered for one layer at a time.

A run of the whole model is the model's own: FSDP gathers each layer before it runs. Where a part runs alone, its
weights are gathered here, as FSDP gathers them, and FSDP itself does nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from statesize.errors import ModelError
from statesize.parallel.ranks import ALONE, RankError, Replicas, Team, ended, exchange, is_of_ranks

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_STATE = "__composable_api_state_key"
_FSDP = "torch.distributed.fsdp."
# Bytes of each weight by which replicas are compared in order.
_SAMPLED = 4096
_Weights = dict[nn.Module, dict[str, nn.Parameter]]


@dataclass(eq=False)
class _Gathered:
    """What is gathered while a model is measured on all its ranks: a part runs alone many times."""

    # The part that was gathered last, the same on all ranks.
    last: dict[nn.Module, _Weights] = field(default_factory=dict[nn.Module, _Weights])
    # The part that this rank alone will run again.
    own: dict[nn.Module, _Weights] = field(default_factory=dict[nn.Module, _Weights])
    alone: bool = False  # whether it does so now


_measuring: ContextVar[_Gathered | None] = ContextVar("_measuring", default=None)


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module, which fully_shard replaces by one that derives from it."""
    sharded = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", ())
    return next(kind for kind in type(module).__mro__ if not issubclass(kind, sharded))


def read_first(module: nn.Module, hook: Callable[..., object]) -> RemovableHandle:
    """Let a hook read what enters a module before all others do, but behind FSDP's, which gathers and casts."""
    hooks = cast("OrderedDict[int, Callable[..., object]]", vars(module)["_forward_pre_hooks"])
    first = list(takewhile(lambda key: str(getattr(hooks[key], "__module__", "")).startswith(_FSDP), hooks))
    handle = module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
    for key in reversed(first):
        hooks.move_to_end(key, last=False)
    return handle


def sharded_units(model: nn.Module) -> list[Any]:
    """The modules that fully_shard was applied to, outermost first: each of them is gathered as a whole."""
    sharded: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    # fully_shard makes a class for each class of module: without any, no module need be looked at.
    if sharded is None or not sharded.__subclasses__():
        return []
    return [module for module in model.modules() if isinstance(module, sharded)]


def ranks_of(model: nn.Module, replicas: Replicas | None = None) -> tuple[int, ...]:
    """The ranks that hold a model together, or each a replica; none for a model that this process measures alone."""
    parameters = (parameter for unit in sharded_units(model) for parameter in unit.parameters())
    mesh = next((parameter.device_mesh.mesh for parameter in parameters if is_sharded(parameter)), None)
    if mesh is None or mesh.numel() == 1:
        return () if replicas is None else replicas.ranks
    return tuple(sorted(mesh.flatten().tolist()))


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is shared out among ranks."""
    return isinstance(tensor, getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ()))


def whole(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all ranks if it is shared out among them."""
    return cast("Any", tensor).full_tensor() if is_sharded(tensor) else tensor


def check_sharding(parts: Sequence[tuple[str, nn.Module]], parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse a model that is shared out so that no layer is whole in this process while it runs."""
    for name, part in parts:
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(part).__mro__):
            raise ModelError(
                f"{name or 'model'} must be sharded by fully_shard (FSDP2), got FullyShardedDataParallel (FSDP1), "
                "which joins the weights of a layer into one. Use torch.distributed.fsdp.fully_shard."
            )
    gathered = {parameter for unit in sharded_units(parts[0][1]) for parameter in unit.parameters()}
    shared_out = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
    for name, parameter in parameters:
        # DeepSpeed marks what it has shared out.
        if hasattr(parameter, "ds_id"):
            raise ModelError(
                f"Parameter {name} must be whole where its layer runs, got one that ZeRO-3 of DeepSpeed has shared "
                "out. Shard the model by fully_shard (FSDP2), train with ZeRO-2, or measure a checkpoint."
            )
        placements = cast("Any", parameter).placements if isinstance(parameter, shared_out) else ()
        # Replicas beside the shards are those of HSDP.
        if placements and (parameter not in gathered or sum(one.is_shard() for one in placements) > 1):
            raise ModelError(
                f"Parameter {name} must be whole where its layer runs, got a DTensor of placements {placements}, as of "
                "a tensor parallel plan (tp_plan), which splits the heads of a layer, or of a module around the model. "
                "Load the model without the plan; give the module that the outermost fully_shard was applied to."
            )


def check_whole(model: nn.Module) -> None:
    """Refuse a model on several ranks for what runs it again and again with other weights or caches."""
    if ranks := ranks_of(model):
        raise ModelError(
            f"model must be whole in this process to be cut or made smaller, got one on ranks "
            f"{', '.join(map(str, ranks))}. Save it, and give the folder."
        )


class Shards:
    """The sharded weights of a model for the time of a run, after which they are sharded as before."""

    def __init__(self, model: nn.Module, units: list[Any]) -> None:
        self.model, self.units = model, units
        self._replaced_hooks: list[tuple[dict[int, Any], int, Any]] = []
        # FSDP leaves its outermost module gathered after a forward pass.
        self._reshard()

    def gather(self, part: nn.Module) -> None:
        """Let a part of the model run alone, with its own weights whole and without FSDP."""
        for module, weights in gathered(self.model, part).items():
            vars(module)["_parameters"].update(weights)
            if isinstance(module, nn.RNNBase):
                # It runs on a list of its weights.
                cast("Any", module)._init_flat_weights()
        self.silence(part)

    def silence(self, part: nn.Module) -> None:
        """Let FSDP do nothing where a part runs."""
        for module in part.modules():
            for hooks in cast("list[dict[int, Any]]", [vars(module)[kind] for kind in _HOOKS]):
                where = {key: str(getattr(hook, "__module__", "")) for key, hook in hooks.items()}
                own = {key: hooks[key] for key in where if where[key].startswith(_FSDP)}
                self._replaced_hooks += [(hooks, key, hook) for key, hook in own.items()]
                hooks.update(dict.fromkeys(own, _nothing))

    def put_back(self) -> None:
        """Leave the weights sharded, and FSDP as it was."""
        for hooks, key, hook in self._replaced_hooks:
            hooks[key] = hook
        self._reshard()

    def fail(self, error: BaseException) -> None:
        """Let FSDP begin anew after a run that was not finished; raises what has ended it if that is another rank."""
        for unit in self.units:
            # All but outermost modules refuse. Torch has it from 2.13 on.
            with suppress(RuntimeError, AttributeError):
                unit.reset_iter_state()
        if is_of_ranks(error):
            raise ended(error) from error

    def _reshard(self) -> None:
        for unit in self.units:
            unit.reshard()


def gathered(model: nn.Module, part: nn.Module) -> _Weights:
    """Copies of the weights of a part as its runs have them, by module and name."""
    kept = _measuring.get()
    if kept is None:
        return _gather(model, part)
    if part not in kept.last:
        if kept.alone:
            # Others gather nothing now, or another part.
            raise ModelError(
                f"{class_of(part).__name__} must run on all ranks, got a run on one. Measure a checkpoint."
            )
        kept.last.clear()
        kept.last[part] = _gather(model, part)
    return kept.last[part]


def hold_gathered() -> None:
    """Keep what was gathered last for `alone`, while the ranks gather others."""
    if (kept := _measuring.get()) is not None:
        kept.own = dict(kept.last)


@contextmanager
def alone() -> Generator[None]:
    """Let this rank run the part that it holds, while the others run theirs; then it holds none."""
    kept = _measuring.get()
    if kept is None:
        yield
        return
    last, kept.last, kept.alone = kept.last, kept.own, True
    try:
        yield
    finally:
        kept.last, kept.own, kept.alone = last, {}, False


def _gather(model: nn.Module, part: nn.Module) -> _Weights:
    """Such copies, made for one unit of FSDP at a time."""
    inside, owners = set(part.modules()), dict[Any, None]()
    units = set(sharded_units(model))

    def visit(module: nn.Module, owner: nn.Module | None) -> None:
        owner = module if module in units else owner
        if module in inside and owner is not None:
            owners[owner] = None
        for child in module.children():
            visit(child, owner)

    visit(model, None)
    copies: _Weights = {module: {} for module in inside}
    # Inference tensors, which FSDP would keep, have no gradients later.
    with torch.inference_mode(False), torch.no_grad():
        for owner in owners:
            before = {module: dict(vars(module)["_parameters"]) for module in inside}
            owner.unshard()
            for module, weights in before.items():
                for name, weight in cast("dict[str, nn.Parameter]", vars(module)["_parameters"]).items():
                    if weight is not weights[name]:
                        copies[module][name] = nn.Parameter(weight.detach().clone(), requires_grad=False)
            owner.reshard()
    return copies


class _Computed(TorchFunctionMode):
    """Lets copies have the values of tensors that were computed, such as weights by `weight_norm`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, with what stands in a memo in place of what has its id."""
    with _Computed():
        return copy.deepcopy(module, memo)


def unsharded_copy(model: nn.Module, part: nn.Module) -> nn.Module:
    """A copy of a part of a model, with whole weights and without FSDP."""
    shards, memo = Shards(model, sharded_units(model)), dict[int, Any]()
    units: list[tuple[Any, Any]] = [(unit, type(unit)) for unit in sharded_units(part)]
    for module, weights in gathered(model, part).items() if shards.units else ():
        for name, weight in weights.items():
            # An object of its own: a copy that is converted would convert what others are given.
            memo[id(vars(module)["_parameters"][name])] = nn.Parameter(weight.detach(), requires_grad=False)
        memo |= {id(value): {} for key, value in vars(module).items() if key.startswith(_STATE)}
    try:
        shards.silence(part)
        for unit, _ in units:
            unit.__class__ = class_of(unit)
        return copied(part, memo)
    finally:
        for unit, kind in units:
            unit.__class__ = kind
        shards.put_back()


@contextmanager
def together(model: nn.Module, *facts: object, replicas: Replicas | None = None) -> Generator[Team]:
    """Measure a model on all ranks that hold it: an error on all where one does not come, or is to measure another.

    Args:
        model: The model, sharded or not; calls inside of one for the same model are part of it.
        facts: What must be the same on all ranks: tensors, and what has a `repr`.
        replicas: The ranks of a model that each of them holds whole, if they share the work.

    Yields:
        The ranks, while the model may be gathered; where one of them fails, its error is raised on all.

    Raises:
        RankError: If a rank does not come, or is to measure something else.
    """
    ranks = () if _measuring.get() is not None else ranks_of(model, replicas)
    if not ranks:
        yield ALONE
        return
    team, replicated = Team(ranks), not ranks_of(model)
    same: list[Any] = [(name, tuple(one.shape), one.dtype) for name, one in model.named_parameters()]
    buffers = list(model.buffers()) if replicated else []
    if replicated:
        same += [sample for one in model.parameters() for sample in _sampled(one)]
        same += [(name, tuple(one.shape), one.dtype) for name, one in model.named_buffers()]
        same += _configurations(model)
    said = team.meet(f"{_digest(same)} {_digest(facts)} {_digest(buffers)}")
    for index, what in enumerate(("model", "inputs and settings")):
        others = [rank for rank, one in zip(ranks, said, strict=True) if one.split()[index] != said[0].split()[index]]
        if others:
            raise RankError(
                f"{what} must be the same on all ranks that hold the model, got others on rank "
                f"{', '.join(map(str, others))} than on rank {ranks[0]}. Give each rank the same."
            )
    token = _measuring.set(_Gathered())
    try:
        with nullcontext() if len({one.split()[2] for one in said}) == 1 else _of_first_rank(buffers, team):
            yield team
    except BaseException as error:
        team.leave(error)
        raise
    finally:
        _measuring.reset(token)


def _sampled(tensor: Tensor) -> tuple[int, Tensor]:
    """What tells a tensor from others of its shape at little cost: the sum of its bytes, and some of them in order."""
    content = _bytes(tensor)
    return int(content.sum()), content[:: max(1, len(content) // _SAMPLED)]


def _configurations(model: nn.Module) -> list[str]:
    """What the configurations of transformers in a model say, but for where it came from."""
    several: list[Any] = [getattr(part, "config", None) for part in model.modules()]
    found = {id(one): one for one in several if hasattr(one, "to_dict")}
    return [
        json.dumps({key: value for key, value in one.to_dict().items() if "name_or_path" not in key}, default=str)
        for one in found.values()
    ]


@contextmanager
def _of_first_rank(buffers: Sequence[Tensor], team: Team) -> Generator[None]:
    """Let all ranks have the buffers of the first one, which count in DDP: it sends them at its next forward pass."""
    own = [buffer.detach().clone() for buffer in buffers]
    content = b"".join(_bytes(one).cpu().numpy().tobytes() for one in own)
    first, start = torch.frombuffer(bytearray(team.all(content)[0]), dtype=torch.uint8), 0
    try:
        with torch.no_grad():
            for buffer in buffers:
                # A copy, because numbers must begin at a multiple of their size.
                part = first[start : start + buffer.numel() * buffer.element_size()].clone()
                buffer.copy_(part.view(buffer.dtype).view(buffer.shape))
                start += len(part)
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, own, strict=True):
                buffer.copy_(before)


def agreed(ranks: tuple[int, ...], value: int) -> int:
    """A number that may differ from rank to rank, such as one that a clock decides: that of the first rank."""
    return int(exchange(ranks, str(value))[0]) if ranks else value


def _digest(value: object) -> str:
    digest = hashlib.sha256()
    for leaf in cast("list[object]", tree_leaves(value)):
        if isinstance(leaf, Tensor):
            digest.update(_bytes(leaf).cpu().numpy().data)
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _nothing(*_: object) -> None:
    return None
