"""T of fla's kernels as recurrences: linear attention with a decay, slots, and delta rules."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.kernels.scans import normalised
from statesize.adapters.observation import Units, chosen
from statesize.operators import Recurrence
from statesize.operators.stepped import DelayedRecurrence, Stepped

# What normalised linear attention adds to the sum that it divides by.
_EPSILON = 1e-10


def gated(call: FlaCall, units: Units) -> Recurrence:
    """GLA (Yang et al. 2023, arXiv 2312.06635): A_t = Diag(exp(g_t)), B_t = k_t, C_t = q_tᵀ; HGRN2 and Rodimus too."""
    key, query = call.keys_and_queries(units)
    name = "gk" if call.arguments.get("gk") is not None else "g"
    decay = torch.ones_like(key[..., :1]) if call.arguments.get(name) is None else call.part(name, units).exp()
    return Recurrence(decay, key, query)


def simple(call: FlaCall, units: Units) -> Recurrence:
    """Simple GLA: the same with one decay per head, A_t = exp(g_t + γ)."""
    key, query = call.keys_and_queries(units)
    log_decay = torch.zeros_like(key[..., 0])
    if call.arguments.get("g") is not None:
        log_decay = log_decay + call.part("g", units)
    if call.arguments.get("g_gamma") is not None:
        log_decay = log_decay + call.by_head(call.arguments["g_gamma"][None, None], units)
    return Recurrence(log_decay.exp()[..., None], key, query)


def retention(call: FlaCall, units: Units) -> Recurrence:
    """RetNet (Sun et al. 2023, arXiv 2307.08621): A_t = 1 − 2^(−5 − h) in head h."""
    key, query = call.keys_and_queries(units)
    head = chosen(units, call.heads, key.device).double()
    decay = 1 - torch.exp2(-5 - head)
    return Recurrence(decay[None, :, None, None].expand(1, -1, call.length, 1), key, query)


def plain(call: FlaCall, units: Units) -> Recurrence:
    """Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236): A_t = 1, its rows normalised on request."""
    key, query = call.keys_and_queries(units)
    if call.arguments.get("normalize"):
        query = query / ((query * key.cumsum(-2)).sum(-1, keepdim=True) + _EPSILON)
    return Recurrence(torch.ones_like(query[..., :1]), key, query)


def hgrn(call: FlaCall, units: Units) -> Recurrence:
    """HGRN (Qin et al. 2023, arXiv 2311.04823): x_t = exp(g_t) x_{t−1} + u_t in every channel, which it returns."""
    decay = call.part("g", units).exp()[..., None]
    return Recurrence(decay, torch.ones_like(decay), torch.ones_like(decay))


def rwkv6(call: FlaCall, units: Units) -> DelayedRecurrence:
    """RWKV-6 (Peng et al. 2024, arXiv 2404.05892): reads r_tᵀ (x_{t−1} + Diag(u) k_t v_t), A_t = Diag(exp(w_t))."""
    key, query = call.keys_and_queries(units, query="r")
    bonus = call.by_head(call.arguments["u"][None, None], units)
    return DelayedRecurrence(call.part("w", units).exp(), key, query, (query * bonus * key).sum(-1))


def gated_slots(call: FlaCall, units: Units) -> Recurrence:
    """GSA (Zhang et al. 2024, arXiv 2409.07146) and ABC: a gated memory of values, read by a softmax over its slots."""
    key, query = call.keys_and_queries(units)
    slots = call.part("s", units)
    if call.arguments.get("g") is None:
        slots, decay = _running_softmax(slots)
    else:
        decay = call.part("g", units).exp()
    return Recurrence(decay, slots, _scores(key, query, slots, decay).softmax(-1))


def light(call: FlaCall, units: Units) -> Recurrence:
    """LightNet (Qin et al. 2024, arXiv 2405.21022): the key dimensions are such slots, read by queries."""
    logits, query = call.keys_and_queries(units)
    weight, decay = _running_softmax(logits)
    return Recurrence(decay, weight, query)


def _running_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weights exp(s_t) over the sum of all so far, and by how much that shrinks earlier ones."""
    total = logits.logcumsumexp(-2)
    decay = torch.exp(functional.pad(total[..., :-1, :], (0, 0, 1, 0)) - total)
    # Nothing comes before the first.
    decay[..., 0, :] = 1
    return torch.exp(logits - total), decay


def _scores(key: Tensor, query: Tensor, slots: Tensor, decay: Tensor) -> Tensor:
    """What queries find in the memory of keys, (S, units, L, slots)."""
    memory = key.new_zeros((*key.shape[:-2], key.shape[-1], slots.shape[-1]))
    scores: list[Tensor] = []
    for t in range(key.shape[-2]):
        memory = decay[..., t, None, :] * memory + key[..., t, :, None] * slots[..., t, None, :]
        scores.append((query[..., t, None, :] @ memory).squeeze(-2))
    return torch.stack(scores, -2)


def delta_rule(call: FlaCall, units: Units) -> Recurrence:
    """A_t = (I − β_t k_t k_tᵀ) D_t: DeltaNet (D = I), Gated DeltaNet (a decay per head), KDA (per key dimension)."""
    key, query = call.keys_and_queries(units)
    strength = call.part("beta", units)
    if call.arguments.get("use_beta_sigmoid_in_kernel"):
        strength = strength.sigmoid() * (2 if call.arguments.get("allow_neg_eigval") else 1)
    return Recurrence.delta_rule(key, strength, query, _decay(call, units, key))


def delta_product(call: FlaCall, units: Units) -> Stepped:
    """DeltaProduct (Siems et al. 2025, arXiv 2502.10297): steps of the delta rule per position, the last read."""
    steps = call.arguments["k"].shape[1] // call.length
    key, query = call.keys_and_queries(units)
    decay = _decay(call, units, key)
    if query.shape[-2] < key.shape[-2]:
        # Queries and decays are those of positions: the first step decays, the last is read.
        query = _placed(query, steps, steps - 1, 0.0)
        decay = decay if call.arguments.get("g") is None else _placed(decay, steps, 0, 1.0)
    last = torch.arange(call.length * steps, device=key.device) % steps == steps - 1
    rule = Recurrence.delta_rule(key, call.part("beta", units), query * last[:, None], decay)
    return Stepped(rule, steps)


def _placed(part: Tensor, steps: int, step: int, between: float) -> Tensor:
    """Entries (…, L, n) at one of the steps of each position, (…, L steps, n)."""
    spread = part.new_full((*part.shape[:-1], steps, part.shape[-1]), between)
    spread[..., step, :] = part
    return spread.flatten(-3, -2)


def gated_delta_net_2(call: FlaCall, units: Units) -> Recurrence:
    """Gated DeltaNet-2: A_t = (I − k_t (b_t ∘ k_t)ᵀ) D_t, B_t = k_t, with an erase gate b of each key dimension."""
    key, query = call.keys_and_queries(units)
    decay = _decay(call, units, key)
    return Recurrence.diagonal_plus_rank_one(decay, -key, call.part("b", units) * key * decay, key, query)


def rwkv7(call: FlaCall, units: Units) -> Recurrence:
    """RWKV-7 (Peng et al. 2025, arXiv 2503.14456): A_t = Diag(exp(w_t)) + b_t a_tᵀ, B_t = k_t, C_t = r_tᵀ."""
    key, query = call.keys_and_queries(units, query="r")
    if "kk" in call.arguments:
        removed = call.part("kk", units)
        row, column = -removed, removed * call.part("a", units)
    else:
        row, column = call.part("a", units), call.part("b", units)
    return Recurrence.diagonal_plus_rank_one(call.part("w", units).exp(), column, row, key, query)


def comba(call: FlaCall, units: Units) -> Recurrence:
    """Comba (Hu et al. 2025, arXiv 2506.02475): A_t = exp(g_t) I − β_t k_t p_tᵀ, which reads before it decays."""
    key, query = call.keys_and_queries(units)
    feedback, strength = call.part("p", units), call.part("beta", units)[..., None]
    if call.arguments.get("use_qk_l2norm_in_kernel"):
        feedback = normalised(feedback)
    decay = call.part("g", units).exp()[..., None]
    return Recurrence.diagonal_plus_rank_one(decay, -strength * key, feedback, strength * key, query)


def _decay(call: FlaCall, units: Units, key: Tensor) -> Tensor:
    """D_t, (S, chosen, L, 1 or n), with the gate that the kernel computes itself."""
    by_key = call.arguments.get("gk")
    decay = torch.ones_like(key[..., :1]) if by_key is None else call.part("gk", units).exp()
    if call.arguments.get("g") is None:
        return decay
    gate = call.part("g", units)
    gate = gate if gate.ndim == key.ndim else gate[..., None]
    if call.arguments.get("use_gate_in_kernel"):
        bias, rate = call.arguments.get("dt_bias"), call.arguments.get("A_log")
        if bias is not None:
            gate = gate + _by_head(call, bias.reshape(call.heads, -1), units)
        speed = 1.0 if rate is None else _by_head(call, rate, units).exp()
        least = call.arguments.get("lower_bound")
        gate = -speed * functional.softplus(gate) if least is None else least * torch.sigmoid(speed * gate)
    return gate.exp() if by_key is None else decay * gate.exp()


def _by_head(call: FlaCall, parameter: Tensor, units: Units) -> Tensor:
    """A parameter (heads) or (heads, n) as (1, chosen, 1, 1 or n)."""
    return call.by_head(parameter.reshape(1, 1, parameter.shape[0], -1), units)
