"""Models that are shared out among ranks: what is refused, and a whole copy of one by fully_shard (FSDP2)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.model_state import NamedModules, copied, named_parts
from statesize.errors import ModelError

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_STATE = "__composable_api_state_key"
_FSDP = "torch.distributed.fsdp."


def _class_of(package: str, name: str) -> Any:
    """A class of torch.distributed, or no class where the package was not imported: importing it takes long."""
    return getattr(sys.modules.get(f"torch.distributed.{package}"), name, ())


def sharded_units(model: nn.Module) -> list[Any]:
    """The modules that fully_shard was applied to, outermost first: each of them is gathered as a whole."""
    sharded = _class_of("fsdp", "FSDPModule")
    # fully_shard makes a class for each class of module: without any, no module need be looked at.
    modules = model.modules() if sharded and sharded.__subclasses__() else ()
    return [module for module in modules if isinstance(module, sharded)]


def check_sharding(parts: NamedModules, parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse a model that is shared out, so that its layers are not whole in this process."""
    check_gatherable(parts, parameters)
    if sharded_units(parts[0][1]):
        raise ModelError(
            f"model must be whole in this process, got {type(parts[0][1]).__name__}, which fully_shard has shared out "
            "among ranks. On every rank, call statesize.integrations.ranks.on_first_rank(model, work)."
        )


def check_gatherable(parts: NamedModules, parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse a model that is shared out otherwise than by fully_shard: no whole copy of it can be gathered here."""
    if any(kind.__name__ == "FullyShardedDataParallel" for _, part in parts for kind in type(part).__mro__):
        raise ModelError(
            "model must be sharded by fully_shard (FSDP2), got FullyShardedDataParallel (FSDP1), which joins the "
            "weights of a layer into one. Use torch.distributed.fsdp.fully_shard."
        )
    gathered = {parameter for unit in sharded_units(parts[0][1]) for parameter in unit.parameters()}
    shared_out = _class_of("tensor", "DTensor")
    for name, parameter in parameters:
        placements = cast("Any", parameter).placements if isinstance(parameter, shared_out) else ()
        # DeepSpeed marks what it has shared out. Replicas beside the shards are those of HSDP.
        elsewhere = placements and (parameter not in gathered or sum(place.is_shard() for place in placements) > 1)
        if hasattr(parameter, "ds_id") or elsewhere:
            kind = (
                f"a DTensor of placements {placements}" if placements else "one that ZeRO-3 of DeepSpeed has shared out"
            )
            raise ModelError(
                f"Parameter {name} must be whole where its layer runs, got {kind}. Shard the model by fully_shard "
                "(FSDP2) and give its outermost module, train with ZeRO-2, or load the model without a tp_plan."
            )


def unsharded_copy(model: nn.Module, *, keep: bool = True) -> nn.Module:
    """A whole copy of a model that fully_shard has sharded, without FSDP; all its ranks call this."""
    # One unit is gathered at a time. The copy holds all weights, in the dtype in which their layers run, and buffers. A
    # rank that does not keep them only takes part in gathering, and gets the model itself.
    units = sharded_units(model)
    for unit in units:
        # FSDP leaves its outermost module gathered after a forward pass.
        unit.reshard()
    check_gatherable(named_parts(model), model.named_parameters())
    copies, failed = dict[int, Any](), cast("Exception | None", None)
    # Inference tensors, which FSDP would keep, have no gradients later.
    with torch.inference_mode(False), torch.no_grad():
        for unit in units:
            unit.unshard()
            try:
                copies |= {} if failed or not keep else _cloned(unit)
            except Exception as error:  # such as too little memory: the others go on gathering, and so does this one
                failed = error
            unit.reshard()
    if failed is not None:
        raise failed
    return _copied(model, units, copies) if keep else model


def _cloned(unit: nn.Module) -> dict[int, nn.Parameter]:
    """Copies of the weights of a unit that are whole now, by the identity of those that it holds when sharded."""
    shared_out = _class_of("tensor", "DTensor")
    weights = {
        (module, name): nn.Parameter(weight.detach().clone(), requires_grad=False)
        for module in unit.modules()
        for name, weight in module.named_parameters(recurse=False)
        if not isinstance(weight, shared_out)
    }
    cast("Any", unit).reshard()
    return {id(vars(module)["_parameters"][name]): weight for (module, name), weight in weights.items()}


def _copied(model: nn.Module, units: Sequence[Any], memo: dict[int, Any]) -> nn.Module:
    """A copy of a model with other weights, by the identity of its own, and without FSDP."""
    for module in model.modules():
        memo |= {id(value): {} for key, value in vars(module).items() if key.startswith(_STATE)}
        hooks = [hook for kind in _HOOKS for hook in vars(module)[kind].values()]
        memo |= {id(hook): _nothing for hook in hooks if str(getattr(hook, "__module__", "")).startswith(_FSDP)}
    sharded = _class_of("fsdp", "FSDPModule")
    kinds: list[tuple[Any, type[nn.Module]]] = [(unit, type(unit)) for unit in units]
    try:
        for unit, kind in kinds:
            # fully_shard has replaced the class by one that derives from it, and refuses to be copied.
            unit.__class__ = next(own for own in kind.__mro__ if not issubclass(own, sharded))
        whole = copied(model, memo)
    finally:
        for unit, kind in kinds:
            unit.__class__ = kind
    for module in whole.modules():
        for hooks in cast("list[dict[int, Any]]", [vars(module)[kind] for kind in _HOOKS]):
            for key in [key for key, hook in hooks.items() if hook is _nothing]:
                del hooks[key]
    return whole


def _nothing(*_: object) -> None:
    return None
