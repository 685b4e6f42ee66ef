"""Layers of flash-linear-attention (fla) as mixers, "fla:gated_deltanet", with its kernels in torch off the GPU."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from statesize.adapters.fla.sizes import expansion
from statesize.errors import InputError
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.registry import FLA_MIXERS

_CHUNK = 32


class FlaMixer(nn.Module):
    """A layer of fla with the shape of a model; capture observes its kernel, and its weights start as fla sets them.

    Args:
        config: Shape of the model; `width`, `heads`, `key_size` and `convolution_size` are used.
        name: A key of `FLA_MIXERS`.
    """

    compiles: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        options = _settings(config, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _prepare()
                self.layer: nn.Module = getattr(import_module("fla.layers"), FLA_MIXERS[name])(**options)
            # Its functions run in torch where its weights are not on a GPU, whoever calls it.
            self.layer.register_forward_pre_hook(_begin)
            self.layer.register_forward_hook(_end, always_call=True)
            if name == "fla:mamba2":
                # Its own is a kernel of fla.
                self.layer.act = nn.SiLU()
        except ImportError as error:
            raise InputError(
                f"mixer must be there to be trained, got {name!r}, a layer of flash-linear-attention, which cannot be "
                f"imported ({error}). Install it: pip install 'statesize[fla]'."
            ) from error

    def forward(self, hidden: Tensor) -> Tensor:
        """Mixes whole sequences, (S, L, d)."""
        return self.layer(hidden)[0]


def _settings(config: ModelConfig, name: str) -> dict[str, Any]:
    """What a layer of fla is made with."""
    shape = {"hidden_size": config.width, "num_heads": config.heads}
    if name == "fla:mamba2":
        return shape | {
            "head_dim": 2 * config.value_size,
            "state_size": config.key_size,
            "conv_kernel": config.convolution_size,
            "chunk_size": _CHUNK,
            "backend": "triton",
        }
    if name == "fla:rwkv7":
        if config.key_size != config.value_size:
            raise InputError(
                f"key_size must be width / heads = {config.value_size} for 'fla:rwkv7', got {config.key_size}. Its "
                "keys have as many dimensions as its values."
            )
        # As the first layer of a model, which takes no values of an earlier one.
        return {
            "hidden_size": config.width,
            "head_dim": config.key_size,
            "layer_idx": 0,
            "num_hidden_layers": max(2, config.layers),
        }
    shape |= {"use_short_conv": config.convolution_size > 1, "conv_size": config.convolution_size}
    if name == "fla:delta_net":
        return shape | {"expand_k": expansion(config.key_size * config.heads, config.width), "expand_v": 1}
    return shape | {"head_dim": config.key_size, "expand_v": expansion(config.value_size, config.key_size)}


# Whether a layer runs off the GPU as a mixer; other models of fla are left as they are.
_WITHOUT_GPU = ContextVar("without_gpu", default=False)


def _begin(layer: nn.Module, _: Any) -> None:
    _WITHOUT_GPU.set(not next(layer.parameters()).is_cuda)


def _end(*_: Any) -> None:
    _WITHOUT_GPU.set(False)


def _prepare() -> None:
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
    return _mixed(form, query, key, a["v"], a["beta"]), None


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
    return _mixed(form, query, a["k"], a["v"], row, column, a["w"]), None


def _keys_and_queries(a: dict[str, Any]) -> tuple[Tensor, Tensor]:
    key, query = a["k"], a["q"]
    if a["use_qk_l2norm_in_kernel"]:
        key, query = (part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (key, query))
    return key, query


def _mixed(form: Callable[..., Any], *parts: Tensor) -> Tensor:
    """A form that takes (S, H, L, …) with whole chunks, of parts (S, L, H, …)."""
    length = parts[0].shape[1]
    missing = -length % _CHUNK
    padded = (functional.pad(part, (0, 0) * (part.ndim - 2) + (0, missing)).transpose(1, 2) for part in parts)
    return form(*padded, chunk_size=_CHUNK)[0].transpose(1, 2)[:, :length]


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
