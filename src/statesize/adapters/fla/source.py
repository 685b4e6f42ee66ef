"""Layers of flash-linear-attention (fla), and others' that call its kernels: formulas, and where they are seen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial, wraps
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from statesize.adapters.fla import formulas
from statesize.adapters.fla.attention import Impulses, by_impulses, softmax_attention
from statesize.adapters.fla.call import FlaCall
from statesize.adapters.observation import ModuleStack, Observation, OnObservation, Product, Units, nothing
from statesize.adapters.replaced import first, meanings, replaced, with_first
from statesize.operators import Operator

Parse = Callable[[FlaCall], Observation]


@dataclass(frozen=True)
class Formula:
    """T of one family of kernels as a recurrence."""

    kind: str  # what a mixer with such a kernel is called
    operator: Callable[[FlaCall, Units], Operator]
    values: str = "v"  # the argument that T acts on
    keys: str = "k"  # the argument whose last dimension is the state

    def __call__(self, call: FlaCall) -> Observation:
        """What one call mixed."""
        call.require_whole()
        values, mixed, kind, formula = call.arguments[self.values], call.output, self.kind, self.operator
        by_channel, steps = values.ndim == 3, values.shape[1] // call.length
        if steps > 1:
            # A delta rule that takes several steps per position.
            kind, formula = "delta product", formulas.delta_product
            values = values.reshape(len(values), call.length, steps, *values.shape[2:]).movedim(2, 3).flatten(3)
            mixed = mixed if mixed.shape[1] == call.length else mixed[:, steps - 1 :: steps]
        elif kind == "gated delta net 2":
            values = values * call.arguments["w"]
        elif by_channel:
            # Each channel is a head of its own, as in HGRN.
            values, mixed = values[..., None], mixed[..., None]
        heads, channels = mixed.shape[2:]
        # Slots hold keys beside the values.
        beside = call.arguments["k"].shape[-1] if self.keys == "s" else 0
        size = 1 if by_channel else call.arguments[self.keys].shape[-1]
        operator, held = partial(formula, call), heads * (channels + beside) * size * torch.float32.itemsize
        exact = nothing if steps > 1 else partial(_stepped, call, by_channel=by_channel)
        values, mixed = values.transpose(1, 2), mixed.transpose(1, 2)
        return Observation(call.name, kind, operator, values, mixed, state_size=size, state_bytes=held, exact=exact)


def _width(call: FlaCall) -> int:
    return call.arguments["k"].shape[-1]


# By the name of the function without "chunk_", "fused_chunk_", "fused_recurrent_", "fused_mul_recurrent_", "parallel_".
KERNELS: dict[str, Parse] = {
    "gla": Formula("gla", formulas.gated),
    "simple_gla": Formula("simple gla", formulas.simple),
    "retention": Formula("retention", formulas.retention),
    "linear_attn": Formula("linear attention", formulas.plain),
    "hgrn": Formula("hgrn", formulas.hgrn, values="x"),
    "lightnet": Formula("lightnet", formulas.light),
    "rwkv6": Formula("rwkv6", formulas.rwkv6),
    # Solved by conjugate gradients, whose last digits are part of T.
    "mesa_net": Impulses("mesa net", _width),
    "based": Impulses("based", lambda call: 1 + _width(call) + _width(call) ** 2),
    "rebased": Impulses("rebased", lambda call: _width(call) ** 2),
    "cyfa": Impulses("cyclic flow attention", lambda call: int(cast("Any", call.module).num_slots)),
    "gsa": Formula("gated slots", formulas.gated_slots, keys="s"),
    "abc": Formula("bounded memory", formulas.gated_slots, keys="s"),
    "delta_rule": Formula("delta rule", formulas.delta_rule),
    "gated_delta_product": Formula("delta product", formulas.delta_product),
    "gated_delta_rule": Formula("gated delta rule", formulas.delta_rule),
    "kda": Formula("kimi delta attention", formulas.delta_rule),
    "gdn2": Formula("gated delta net 2", formulas.gated_delta_net_2),
    "precond_gated_delta_rule": Impulses("preconditioned delta rule", _width),
    "precond_kda": Impulses("preconditioned kimi delta attention", _width),
    "rwkv7": Formula("rwkv7", formulas.rwkv7),
    "comba": Formula("comba", formulas.comba),
    "momentum_delta_rule": Impulses("momentum delta rule", lambda call: 2 * _width(call)),
    "flash_attn_func": softmax_attention,
    "flash_attn_varlen_func": softmax_attention,
    "attn": softmax_attention,
    "forgetting_attn": softmax_attention,
}
_PREFIXES = ("chunk_", "fused_chunk_", "fused_recurrent_", "fused_mul_recurrent_", "parallel_")


def formula_of(name: str) -> Parse | None:
    """What reads T out of the calls of a kernel, by its name."""
    names = (name.removeprefix(prefix) for prefix in ("", *_PREFIXES))
    return next((KERNELS[stem] for stem in names if stem in KERNELS), None)


def parse(call: FlaCall) -> Observation:
    """The mixer of a call: by a formula, or by impulses where none is known."""
    return (formula_of(call.kernel) or by_impulses)(call)


_PACKAGES = ("fla", "flash_attn")


def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> AbstractContextManager[None]:
    """Observe the kernels of fla that the files of a model's layers have imported."""
    # The functions themselves run, with their decorators, which choose between implementations.
    kernels = {(file, name): kernel for file in files for name, kernel in meanings(file).items() if _is_kernel(kernel)}
    return replaced({place: _observed(function, running, record) for place, function in kernels.items()})


def _is_kernel(function: object) -> bool:
    """Recognise a function of fla that mixes values by queries and keys."""
    package, _, rest = (getattr(function, "__module__", None) or "").partition(".")
    if not inspect.isfunction(function) or package not in _PACKAGES or (package == "fla" and rest[:4] != "ops."):
        return False
    if formula_of(function.__name__):
        return True
    return {"q", "k", "v"} <= set(inspect.signature(function).parameters)


def _observed(function: Callable[..., Any], running: ModuleStack, record: OnObservation) -> Callable[..., Any]:
    @wraps(function)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        by_name = {**dict(zip(inspect.signature(function).parameters, args, strict=False)), **kwargs}
        values, mixed = by_name.get("v"), first(result)
        product = Product(values, 1, mixed, 1) if isinstance(values, torch.Tensor) else None

        def observation() -> Observation:
            return replace(parse(FlaCall.made(running, function, args, kwargs, result)), in_double=False)

        return with_first(result, record(observation, product))

    return kernel


@torch.no_grad()
def _stepped(call: FlaCall, *, by_channel: bool) -> Tensor | None:
    """Run fla's own step form on a chunked kernel's arguments, (S, unit, L, P); None where fla has no such form."""
    if not call.kernel.startswith("chunk_"):
        return None
    # The package of "fla.ops.rwkv7.chunk" has both forms.
    package = import_module(".".join(call.function.__module__.split(".")[:3]))
    form = getattr(package, call.kernel.replace("chunk_", "fused_recurrent_", 1), None)
    if form is None:
        return None
    parameters = inspect.signature(form).parameters
    by_name = {name: call.arguments[name] for name in parameters if name in call.arguments}
    if "g" not in parameters and "gk" in parameters:
        # The step form of gated linear attention takes decays of values too.
        by_name["gk"] = call.arguments["g"]
    named = (parameter for parameter in parameters.values() if parameter.kind is not parameter.VAR_KEYWORD)
    if any(parameter.default is parameter.empty and parameter.name not in by_name for parameter in named):
        return None
    try:
        mixed = first(form(**by_name))
    except RuntimeError as error:
        # Where Triton has no driver, something else than the kernel was called.
        if "active drivers" not in str(error):
            raise
        return None
    return (mixed[..., None] if by_channel else mixed).transpose(1, 2)
