"""Layers that are observed by their parts: mLSTM, RG-LRU, lightning attention, and LFM2's gated convolutions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.models.own_cache import SHORT_CONVOLUTION, convolution_bytes
from statesize.adapters.models.precision import ROUNDED, stored_dtype
from statesize.adapters.observation import Observation, Units, take
from statesize.adapters.replaced import MixerCall, first, source_of
from statesize.codes import Code, Note
from statesize.errors import ModelError
from statesize.operators import Recurrence
from statesize.operators.stepped import DelayedRecurrence


def mlstm(call: MixerCall) -> Observation:
    """The T of every head: A_t = f_t, B_t = i_t k_t, C_t = q_tᵀ / √n over the normaliser max(|n_tᵀ q_t|, 1)."""
    part = call.parts["mlstm_backend"]
    query, key, values = (part.kwargs[name] for name in ("query", "key", "value"))
    if part.kwargs.get("c_initial") is not None:
        raise ModelError(
            f"{call.name} was called with an initial state, so its operator would miss what came before: run without a "
            "cache (use_cache=False), with config.max_inference_chunksize at least the length of the sequence."
        )
    heads, channels, states = values.shape[1], values.shape[3], key.shape[-1]
    epsilon = float(cast("Any", call.module).mlstm_backend.config.eps)

    def operator(units: Units) -> Recurrence:
        keys, queries = take(key, units, 1), take(query, units, 1) * states**-0.5
        write, forget = take(part.kwargs["igate"], units, 1), take(part.kwargs["fgate"], units, 1)
        return _normalised(keys, queries, write, functional.logsigmoid(forget), epsilon)

    # Memory, normaliser and running maximum of each head.
    held = heads * (states * channels + states + 1) * torch.float32.itemsize
    mixed = first(part.output)
    return Observation(call.name, "mlstm", operator, values, mixed, state_size=states, state_bytes=held)


observing_mlstm = source_of(("xLSTMLayer",), ("mlstm_backend",), mlstm)


def _normalised(key: Tensor, query: Tensor, write: Tensor, forget: Tensor, epsilon: float) -> Recurrence:
    """T in units of the largest weight so far, m_t = max(log f_t + m_{t−1}, log i_t) with m_0 = 0."""
    A, B = torch.empty_like(write), torch.empty_like(write)
    largest = torch.zeros_like(write[..., 0])
    floor = torch.empty_like(write)
    for t in range(write.shape[-1]):
        faded = forget[..., t] + largest
        largest = torch.maximum(faded, write[..., t])
        A[..., t], B[..., t] = torch.exp(faded - largest), torch.exp(write[..., t] - largest)
        floor[..., t] = torch.exp(-largest)
    unscaled = Recurrence(A[..., None], B[..., None] * key, query)
    # The normaliser is the same recurrence with an input of ones.
    total = unscaled.apply(torch.ones_like(write)[..., None])
    scale = torch.maximum(total.abs(), floor[..., None]) + epsilon
    return Recurrence(A[..., None], unscaled.B, query / scale)


_RATE = -8.0  # log a_t = −8 r_t softplus(Λ)


def rg_lru(call: MixerCall) -> Observation:
    """The T of every channel: A_t = a_t, B_t = √(1 − a_t²) i_t, C_t = 1; at a start A_t = 0, B_t = i_t."""
    unit = cast("Any", call.module).rg_lru
    part = call.parts["rg_lru"]
    activations, position_ids = part.args
    start = position_ids == 0
    write, forget = _gate(unit, "input_gate", activations), _gate(unit, "recurrent_gate", activations)

    def operator(units: Units) -> Recurrence:
        rate = functional.softplus(take(unit.recurrent_param, units, 0))[:, None]
        logarithm = _RATE * take(forget, units, 2).transpose(1, 2) * rate
        begins = start[:, None].to(logarithm.device)
        decay = logarithm.exp().masked_fill(begins, 0)
        scale = (-torch.expm1(2 * logarithm)).sqrt().masked_fill(begins, 1)
        B = (scale * take(write, units, 2).transpose(1, 2))[..., None]
        return Recurrence(decay[..., None], B, torch.ones_like(B))

    values, mixed = (part.mT[..., None] for part in (activations, part.output))
    held = activations.shape[-1] * torch.float32.itemsize
    return Observation(call.name, "rg-lru", operator, values, mixed, state_size=1, state_bytes=held)


observing_rg_lru = source_of(("RecurrentGemmaRecurrentBlock",), ("rg_lru",), rg_lru)


def _gate(unit: Any, name: str, activations: Tensor) -> Tensor:
    """A gate of every channel, (S, L, channels): block-diagonal weights, one block per head."""
    weight, bias = getattr(unit, f"{name}_weight"), getattr(unit, f"{name}_bias")
    heads = activations.reshape(*activations.shape[:2], *weight.shape[:2])
    return torch.sigmoid(torch.einsum("slhi,hio->slho", heads, weight) + bias).flatten(-2)


def lightning_attention(call: MixerCall) -> Observation:
    """The T of every head: A_t = exp(−slope), B_t = k_t, C_t = q_tᵀ."""
    module = cast("Any", call.module)
    heads, channels = module.num_attention_heads, module.head_dim
    projected = module.act_fn(call.parts["qkv_proj"].output)
    query, key, values = projected.unflatten(-1, (heads, 3 * channels)).transpose(1, 2).split(channels, -1)
    # Decays over several positions come from tables, which the layer made in float32, and which are rounded with it.
    exact = module.decay_factors(module.slope_rate.double())
    held = (module.query_decay, module.key_decay, module.diagonal_decay)
    rounded = max(float((decay - other).abs().max()) for decay, other in zip(held, exact, strict=True))
    text = f"Its decays are rounded by up to {rounded:.0e}, which T leaves out."

    def operator(units: Units) -> Recurrence:
        decay = torch.exp(-take(module.slope_rate, units, 0)).expand(-1, projected.shape[1], 1)
        return Recurrence(decay[None], take(key, units, 1), take(query, units, 1))

    mixed = call.parts["norm"].args[0].unflatten(-1, (heads, channels)).transpose(1, 2)
    return Observation(
        call.name,
        "lightning attention",
        operator,
        values,
        mixed,
        state_size=channels,
        state_bytes=heads * channels**2 * stored_dtype(call.module).itemsize,
        tolerance=min(max(1e-6, 8 * rounded), ROUNDED),
        notes=(Note(Code.ROUNDED, text),) if rounded > 1e-6 else (),
    )


observing_lightning = source_of(("MiniMaxLightningAttention",), ("qkv_proj", "norm"), lightning_attention)


def gated_convolution(call: MixerCall) -> Observation:
    """The T of every channel: the convolution times Diag(x), with K − 1 states; the other gate acts on what T makes."""
    # Taken here: while the module runs, its weights are in the precision of the run.
    weight, bias = cast("Any", call.module).conv.weight, cast("Any", call.module).conv.bias
    # The convolution acts on a product of two factors; T acts on the first of them.
    values, leaving, entering = call.parts["in_proj"].output.transpose(1, 2).chunk(3, 1)
    states = weight.shape[-1] - 1

    def operator(units: Units) -> DelayedRecurrence:
        """T[i, j] = kernel_{i−j} b_j, as a register that shifts."""
        kernel, gate = take(weight, units, 0).squeeze(1).flip(-1), take(entering, units, 1)
        newest = torch.eye(states, dtype=kernel.dtype, device=kernel.device)[0]
        return DelayedRecurrence(
            A=torch.diag(kernel.new_ones(states - 1), -1).expand(1, 1, gate.shape[-1], states, states),
            B=gate[..., None] * newest,
            C=kernel[:, None, 1:].expand(len(gate), -1, gate.shape[-1], -1),
            D=kernel[:, :1] * gate,
        )

    def passed_on(mixed: Tensor, units: Units) -> Tensor:
        shifted = mixed if bias is None else mixed + take(bias, units, 0)[:, None, None]
        return shifted * take(leaving, units, 1)[..., None]

    held, mixed = convolution_bytes(call.module, values.shape[1], states + 1), call.parts["out_proj"].args[0].mT
    return Observation(
        call.name,
        SHORT_CONVOLUTION,
        operator,
        values[..., None],
        mixed[..., None],
        state_size=states,
        state_bytes=held,
        passed_on=passed_on,
    )


observing_convolutions = source_of(
    ("Lfm2ShortConv", "Lfm2MoeShortConv", "Lfm3ShortConv"), ("in_proj", "out_proj"), gated_convolution
)
