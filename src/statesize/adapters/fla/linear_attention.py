"""Linear attention with a decay or none: T = C_i A_i … A_{j+1} B_j with diagonal A."""

from __future__ import annotations

import torch

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.watching.observation import Units, chosen
from statesize.operators import Recurrence
from statesize.operators.delayed import DelayedRecurrence

# What normalised linear attention adds to the sum that it divides by.
_EPSILON = 1e-10


def gated(call: FlaCall, units: Units) -> Recurrence:
    """GLA (Yang et al. 2023, arXiv 2312.06635): A_t = Diag(exp(g_t)), B_t = k_t, C_t = q_tᵀ; HGRN2 and Rodimus too."""
    key, query = call.keys_and_queries(units)
    name = "gk" if call.arguments.get("gk") is not None else "g"
    decay = torch.ones_like(key[..., :1]) if call.arguments.get(name) is None else call.part(name, units).exp()
    return Recurrence(decay, key, query)


def simple(call: FlaCall, units: Units) -> Recurrence:
    """Simple GLA: the same with one decay a head, A_t = exp(g_t + γ)."""
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
