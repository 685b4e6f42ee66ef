"""Kernels of fla in torch, for machines without a GPU: chunked forms of fla's own where it has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHUNK = 32


# Whether a layer runs off the GPU as a mixer; other models of fla are left as they are.
_WITHOUT_GPU = ContextVar("without_gpu", default=False)


def run_in_torch(layer: nn.Module) -> None:
    """Let the functions of a layer run in torch where its weights are not on a GPU, whoever calls the layer."""
    layer.register_forward_pre_hook(_begin)
    layer.register_forward_hook(_end, always_call=True)


def _begin(layer: nn.Module, _: Any) -> None:
    _WITHOUT_GPU.set(not next(layer.parameters()).is_cuda)


def _end(*_: Any) -> None:
    _WITHOUT_GPU.set(False)


def prepare() -> None:
    """Let functions of fla's layers have a form in torch beside their kernel."""
    for package, functions in _FORMS.items():
        module: Any = import_module(package)
        for name, form in functions.items():
            function = getattr(module, name)
            if not hasattr(function, "torch_form"):
                setattr(module, name, _by_device(function, form))


def _by_device(function: Callable[..., Any], form: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @wraps(function)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        if not _WITHOUT_GPU.get():
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return form(bound.arguments | bound.arguments.pop("kwargs", {}))

    vars(chosen)["torch_form"] = form
    return chosen


def _delta_rule(a: dict[str, Any]) -> tuple[Tensor, None]:
    key, query = _keys_and_queries(a)
    form = import_module("fla.ops.delta_rule.naive").delta_rule_chunkwise
    return _mixed(form, query, key, a["v"], a["beta"], chunk_size=_CHUNK), None


def _gated_delta_rule(a: dict[str, Any]) -> tuple[Tensor, None]:
    key, query = _keys_and_queries(a)
    strength, gate = a["beta"], a["g"]
    if a["use_beta_sigmoid_in_kernel"]:
        strength = strength.sigmoid() * (2 if a["allow_neg_eigval"] else 1)
    if a["use_gate_in_kernel"]:
        gate = -a["A_log"].float().exp() * functional.softplus(gate.float() + a["dt_bias"])
    form = import_module("fla.ops.gated_delta_rule.naive").naive_chunk_gated_delta_rule
    return form(query, key, a["v"], gate, strength, chunk_size=_CHUNK, scale=a["scale"])[0], None


def _rwkv7(a: dict[str, Any]) -> tuple[Tensor, None]:
    row, column = (a["a"], a["b"]) if "b" in a else (-a["kk"], a["kk"] * a["a"])
    # fla's form scales by 1 / √n.
    query = a["r"] * a["scale"] * a["r"].shape[-1] ** 0.5
    form = import_module("fla.ops.generalized_delta_rule.dplr.naive").dplr_chunkwise
    return _mixed(form, query, a["k"], a["v"], row, column, a["w"], chunk_size=_CHUNK), None


def _keys_and_queries(a: dict[str, Any]) -> tuple[Tensor, Tensor]:
    key, query = a["k"], a["q"]
    if a["use_qk_l2norm_in_kernel"]:
        key, query = (part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (key, query))
    return key, query


def _mixed(form: Callable[..., Any], *parts: Tensor, chunk_size: int) -> Tensor:
    """A form that takes (S, H, L, …) with whole chunks, of parts (S, L, H, …)."""
    length = parts[0].shape[1]
    missing = -length % chunk_size
    padded = (functional.pad(part, (0, 0) * (part.ndim - 2) + (0, missing)).transpose(1, 2) for part in parts)
    return form(*padded, chunk_size=chunk_size)[0].transpose(1, 2)[:, :length]


def _convolution(a: dict[str, Any]) -> tuple[Tensor, None]:
    weight, inputs = a["weight"], a["x"]
    padded = functional.pad(inputs.mT, (weight.shape[1] - 1, 0))
    outputs = functional.conv1d(padded, weight[:, None], a["bias"], groups=len(weight)).mT
    return functional.silu(outputs) if a["activation"] else outputs, None


def _rms_norm(a: dict[str, Any]) -> Tensor:
    return functional.rms_norm(a["x"], a["weight"].shape, a["weight"], a["eps"])


def _gated_rms_norm(a: dict[str, Any]) -> Tensor:
    gate = a["g"].sigmoid() if a["activation"] == "sigmoid" else functional.silu(a["g"])
    return _rms_norm(a) * gate


def _rms_norm_of_gated(a: dict[str, Any]) -> Tensor:
    reference = import_module("fla.modules.norm.layernorm_gated").rms_norm_ref
    return reference(a["x"], a["weight"], a["bias"], a["z"], a["eps"], a["group_size"], a["norm_before_gate"])


def _token_shift(a: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return functional.pad(a["x"], (0, 0, 1, -1)) - a["x"], a["x"][:, -1]


def _reference(package: str, name: str) -> Callable[[dict[str, Any]], Any]:
    """A torch form that fla has beside its kernel, with the same arguments in the same order."""

    def form(a: dict[str, Any]) -> Any:
        function = getattr(import_module(package), name)
        return function(*list(a.values())[: len(inspect.signature(function).parameters)])

    return form


_FORMS: dict[str, dict[str, Callable[[dict[str, Any]], Any]]] = {
    "fla.layers.delta_net": {"chunk_delta_rule": _delta_rule, "fused_recurrent_delta_rule": _delta_rule},
    "fla.layers.gated_deltanet": {
        "chunk_gated_delta_rule": _gated_delta_rule,
        "fused_recurrent_gated_delta_rule": _gated_delta_rule,
        "causal_conv1d": _convolution,
    },
    "fla.layers.rwkv7": {
        "chunk_rwkv7": _rwkv7,
        "fused_mul_recurrent_rwkv7": _rwkv7,
        "token_shift": _token_shift,
        "fused_addcmul_rwkv7": _reference("fla.ops.rwkv7.fused_addcmul", "torch_addcmul_rwkv7"),
        "fused_k_rwkv7": _reference("fla.ops.rwkv7.fused_k_update", "k_update_ref"),
        "gate_output_correction": _reference("fla.ops.rwkv7.gate_output_correction", "gate_output_correction_ref"),
    },
    "fla.modules.causal_conv1d.ops": {"causal_conv1d": _convolution},
    "fla.modules.norm.layernorm": {"rms_norm": _rms_norm},
    "fla.modules.norm.fused_norm_gate": {"rms_norm_gated": _gated_rms_norm},
    "fla.modules.norm.layernorm_gated": {"rmsnorm_fn": _rms_norm_of_gated},
}
"""By the file that looks a function up when it runs: what it becomes without a GPU."""
