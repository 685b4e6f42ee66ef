"""Recurrences that transformers computes by module-level functions: Mamba, gated delta rules and RWKV-4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.models.precision import stored_dtype
from statesize.adapters.observation import (
    ModuleStack,
    Observation,
    OnObservation,
    Product,
    Units,
    chosen,
    random_like,
    take,
    unchanged,
)
from statesize.adapters.replaced import ReplacedCall, meanings, observed, pure_torch, replaced
from statesize.operators import Recurrence
from statesize.operators.stepped import DelayedRecurrence


def selective_scan(call: ReplacedCall) -> Observation:
    """The T of every channel: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D; z gates what T u becomes."""
    # `mamba_selective_scan` takes hidden_states, dt and z (S, channels, L); A (channels, n); B and C (S, n, L).
    arguments = call.arguments
    A, dt, gate, values = (arguments[name] for name in ("A", "dt", "z", "hidden_states"))

    def operator(units: Units) -> Recurrence:
        bias = arguments["delta_bias"]
        step = take(dt, units, 1) + (0 if bias is None else take(bias, units, 0)[:, None])
        step = (functional.softplus(step) if arguments["delta_softplus"] else step)[..., None]
        B, C = (arguments[name].transpose(1, 2)[:, None].double() for name in ("B", "C"))
        return Recurrence((step * take(A, units, 0)[:, None]).exp_(), step * B, C, _feed(arguments["D"], units))

    def gated(mixed: Tensor, units: Units) -> Tensor:
        return mixed * functional.silu(take(gate, units, 1))[..., None]

    return Observation(
        call.name,
        "mamba",
        operator,
        values[..., None],
        call.output[..., None],
        state_size=A.shape[-1],
        state_bytes=A.numel() * max(torch.float32.itemsize, stored_dtype(call.module).itemsize),
        passed_on=unchanged if gate is None else gated,
    )


def chunk_scan(call: ReplacedCall) -> Observation:
    """The T of every head, which all its channels share: A_t = exp(Δ_t A), B_t = Δ_t B_t, C_t, and D."""
    # `mamba2_chunk_scan` takes hidden_states (S, L, heads, channels per head), dt (S, L, heads), A and D (heads), B
    # and C (S, L, groups, n), where a group serves consecutive heads.
    call.require_no_state("initial_states")
    arguments = call.arguments
    A, B, C, values = (arguments[name] for name in ("A", "B", "C", "hidden_states"))
    heads, (groups, states) = values.shape[2], B.shape[2:]
    least, most = arguments["dt_limit"]

    def operator(units: Units) -> Recurrence:
        bias = arguments["dt_bias"]
        step = take(arguments["dt"], units, 2) + (0 if bias is None else take(bias, units, 0))
        step = functional.softplus(step) if arguments["dt_softplus"] else step
        step = step.clamp(least, most).transpose(1, 2)[..., None]
        group = chosen(units, heads, B.device) // (heads // groups)
        by_head = [take(vectors, group, 2).transpose(1, 2) for vectors in (B, C)]
        decay = torch.exp(step * take(A, units, 0)[:, None, None])
        return Recurrence(decay, step * by_head[0], by_head[1], _feed(arguments["D"], units))

    return _of_heads(call, "mamba2", operator, values, states)


def _feed(D: Any, units: Units) -> Tensor | None:
    return None if D is None else take(D, units, 0)[None, :, None]


# Under the root of the norms by which the kernels divide queries and keys.
_EPSILON = 1e-6


def delta_rule(kind: str, call: ReplacedCall) -> Observation:
    """The T of every value head: A_t = (I − β_t k_t k_tᵀ) exp(g_t), B_t = β_t k_t, C_t = q_tᵀ / √n."""
    # `torch_chunk_gated_delta_rule` takes query and key (S, L, key heads, n), value (S, L, heads, channels), g and
    # beta (S, L, heads), where a key head serves consecutive heads. `chunk_kimi_delta_attention` takes the same, but a
    # decay for each key dimension, g (S, L, heads, n).
    call.require_no_state("initial_state")
    arguments = call.arguments
    query, key, values = arguments["query"], arguments["key"], arguments["value"]
    heads, (key_heads, states) = values.shape[2], key.shape[2:]

    def operator(units: Units) -> Recurrence:
        head = chosen(units, heads, key.device) // (heads // key_heads)
        keys, queries = (take(part, head, 2).transpose(1, 2) for part in (key, query))
        if arguments["use_qk_l2norm_in_kernel"]:
            keys, queries = normalised(keys), normalised(queries)
        decay = take(arguments["g"], units, 2).transpose(1, 2).exp()
        strength = take(arguments["beta"], units, 2).transpose(1, 2)
        return Recurrence.delta_rule(keys, strength, queries * states**-0.5, decay)

    return _of_heads(call, kind, operator, values, states)


def _of_heads(
    call: ReplacedCall, kind: str, operator: Callable[[Units], Recurrence], values: Tensor, states: int
) -> Observation:
    """The observation of heads whose values are (S, L, H, P), with so many float32 states per channel."""
    mixed, held = call.output.transpose(1, 2), values[0, 0].numel() * states * torch.float32.itemsize
    return Observation(call.name, kind, operator, values.transpose(1, 2), mixed, state_size=states, state_bytes=held)


def normalised(vectors: Tensor) -> Tensor:
    """Vectors over their norms, as kernels of delta rules compute them."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + _EPSILON)


def rwkv_attention(call: ReplacedCall) -> Observation:
    """The T of every channel: a row weighs j < t by exp(k_j − (t − 1 − j) w) and t by exp(u + k_t), and sums to 1."""
    # `rwkv_linear_attention` takes time_decay (the logarithm of w) and time_first, u, (channels); key and value (S,
    # L, channels).
    call.require_no_state("state")
    arguments = call.arguments
    values = arguments["value"].transpose(1, 2)

    def operator(units: Units) -> DelayedRecurrence:
        decay = take(arguments["time_decay"], units, 0).exp()
        first = take(arguments["time_first"], units, 0)
        return _average(take(arguments["key"], units, 2).transpose(1, 2), decay, first)

    # Numerator, denominator and running maximum of each channel.
    held, mixed = 3 * values.shape[1] * torch.float32.itemsize, call.output.mT[..., None]
    return Observation(call.name, "rwkv", operator, values[..., None], mixed, state_size=1, state_bytes=held)


def _average(key: Tensor, decay: Tensor, first: Tensor) -> DelayedRecurrence:
    # Keys (S, units, L), decays w and bonuses u (units). The state is Σ_j exp(k_j − (t − j) w − m_t) v_j, where
    # m_t = max(m_{t−1} − w, k_t) is the largest exponent: nothing overflows, what underflows is below round-off.
    largest = key.new_full(key.shape[:-1], -torch.inf)
    weight = torch.zeros_like(largest)
    steps = list[tuple[Tensor, Tensor, Tensor, Tensor]]()
    for current in key.unbind(-1):
        shown = torch.maximum(largest, current + first)
        past, present = torch.exp(largest - shown), torch.exp(current + first - shown)
        total = past * weight + present
        faded = largest - decay
        largest = torch.maximum(faded, current)
        kept, written = torch.exp(faded - largest), torch.exp(current - largest)
        steps.append((kept, written, past / total, present / total))
        weight = kept * weight + written
    A, B, C, D = (torch.stack(parts, -1) for parts in zip(*steps, strict=True))
    return DelayedRecurrence(A[..., None], B[..., None], C[..., None], D)


@dataclass(frozen=True)
class Scan:
    """A function that scans, by its name in `KERNELS`."""

    parse: Callable[[ReplacedCall], Observation]
    values: str  # its argument that is mixed
    axis: int  # the dimension of positions of that, and of what it returns

    def observation(self, call: ReplacedCall) -> Observation:
        """What one call mixed, and what the function makes of other values."""

        def probed() -> tuple[Tensor, Tensor]:
            again = cast("Callable[[str, Tensor], ReplacedCall]", call.again)
            other = self.parse(again(self.values, random_like(call.arguments[self.values])))
            return other.values, other.mixed

        return changed(self.parse(call), probed=probed)


KERNELS = {
    "mamba_selective_scan": Scan(selective_scan, "hidden_states", 2),
    "mamba2_chunk_scan": Scan(chunk_scan, "hidden_states", 1),
    "torch_chunk_gated_delta_rule": Scan(partial(delta_rule, "gated delta rule"), "value", 1),
    "chunk_kimi_delta_attention": Scan(partial(delta_rule, "kimi delta attention"), "value", 1),
    "rwkv_linear_attention": Scan(rwkv_attention, "value", 1),
}
CONVOLUTION = "causal_conv1d_fn"
# In training, Mamba-2 calls this first for scan and convolution at once; its pure-torch body declines.
_WHOLE_BLOCK = "mamba2_split_conv1d_scan_combined"


def observing(files: Sequence[ModuleType], running: ModuleStack, record: OnObservation) -> AbstractContextManager[None]:
    """Observe the scans of a model; while this is open their short convolutions run in pure torch."""

    def recorder(scan: Scan) -> Callable[[ReplacedCall], Tensor | None]:
        def called(call: ReplacedCall) -> Tensor | None:
            values = call.arguments[scan.values]
            return record(partial(scan.observation, call), Product(values, scan.axis, call.output, scan.axis))

        return called

    changes = dict[tuple[ModuleType, str], Callable[..., Any]]()
    for file in files:
        # Files that do without a package have None instead of its functions.
        functions = {name: function for name, function in meanings(file).items() if function is not None}
        for name in KERNELS.keys() & functions.keys():
            changes[file, name] = observed(functions[name], running, recorder(KERNELS[name]))
        for name in {CONVOLUTION, _WHOLE_BLOCK} & functions.keys():
            changes[file, name] = pure_torch(functions[name])
    return replaced(changes)
