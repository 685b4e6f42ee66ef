"""A tiny layer of every kind of flash-linear-attention: two heads or more, and no gate at its default."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, VOCABULARY = 64, 50
_TWO: Mapping[str, Any] = {"hidden_size": WIDTH, "num_heads": 2}
_DELTA: Mapping[str, Any] = {**_TWO, "head_dim": 32, "expand_v": 1}
_SCAN: Mapping[str, Any] = {"hidden_size": WIDTH, "num_heads": 4, "head_dim": 32, "state_size": 16}
_LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "qk_head_dim": 32}
_BLOCKS = {"num_heads": 16, "num_kv_heads": 1, "head_dim": 16, "block_size": 16, "block_counts": 2, "window_size": 32}
# By a name, the class in fla.layers and what it is made with.
LAYERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "gla": ("GatedLinearAttention", _TWO),
    "hgrn2": ("HGRN2Attention", {**_TWO, "expand_ratio": 32}),
    "hgrn": ("HGRNAttention", {"hidden_size": WIDTH}),
    "retnet": ("MultiScaleRetention", _TWO),
    "simple_gla": ("SimpleGatedLinearAttention", _TWO),
    "linear_attention": ("LinearAttention", {**_TWO, "do_feature_map_norm": True, "feature_map": "elu"}),
    "lightnet": ("LightNetAttention", {**_TWO, "expand_ratio": 32}),
    "rodimus": ("RodimusAttention", {"hidden_size": WIDTH, "expand_ratio": 16}),
    "yoco_retention": ("YOCOGatedRetention", _TWO),
    "based": ("BasedLinearAttention", {**_TWO, "num_key_value_heads": 2, "feature_dim": 16}),
    "rebased": ("ReBasedLinearAttention", {**_TWO, "num_key_value_heads": 2, "feature_dim": 16}),
    "delta_net": ("DeltaNet", _TWO),
    "gated_deltanet": ("GatedDeltaNet", {**_DELTA, "num_v_heads": 4, "allow_neg_eigval": True}),
    "kda": ("KimiDeltaAttention", {**_DELTA, "allow_neg_eigval": True}),
    "gated_deltaproduct": ("GatedDeltaProduct", {**_DELTA, "num_householder": 2}),
    "gated_deltanet2": ("GatedDeltaNet2", _DELTA),
    "precond_gated_deltanet": ("PrecondGatedDeltaNet", _DELTA),
    "precond_kda": ("PrecondKDA", _DELTA),
    "momentum_deltanet": ("MomentumDeltaNet", {**_DELTA, "hidden_size": WIDTH}),
    "rwkv6": ("RWKV6Attention", {**_TWO, "proj_low_rank_dim": 8, "gate_low_rank_dim": 8, "layer_idx": 0}),
    "rwkv7": ("RWKV7Attention", {"hidden_size": WIDTH, "head_dim": 32, "layer_idx": 0, "num_hidden_layers": 2}),
    "comba": ("Comba", _DELTA),
    "gsa": ("GatedSlotAttention", {**_TWO, "num_slots": 16}),
    "abc": ("ABCAttention", {**_TWO, "num_slots": 16}),
    "raven": ("Raven", {**_TWO, "num_slots": 32, "topk": 8, "layer_idx": 0}),
    "mesa_net": ("MesaNet", {**_TWO, "head_dim": 32}),
    "cyfa": ("CyclicFlowAttention", {**_TWO, "head_dim": 32, "num_slots": 16}),
    "mamba": ("Mamba", {"hidden_size": WIDTH, "intermediate_size": 96}),
    "mamba2": ("Mamba2", {**_SCAN, "chunk_size": 16}),
    "mamba2_groups": ("Mamba2", {**_SCAN, "chunk_size": 16, "n_groups": 2}),
    "mamba3": ("Mamba3", {"hidden_size": WIDTH, "head_dim": 32, "state_size": 16}),
    "log_linear_mamba2": ("LogLinearMamba2", {**_SCAN, "hidden_act": "silu"}),
    "mom": ("MomAttention", {**_DELTA, "num_memories": 2, "topk": 1}),
    "attention": ("Attention", {**_TWO, "num_heads": 4, "num_kv_heads": 2}),
    "sliding_attention": ("Attention", {**_TWO, "window_size": 9}),
    "bit_attention": ("BitAttention", _TWO),
    "mla": ("MultiheadLatentAttention", {**_TWO, **_LATENT, "v_head_dim": 16}),
    "forgetting_attention": ("ForgettingAttention", _TWO),
    "path_attention": ("PaTHAttention", {**_TWO, "use_forget_gate": True}),
    "wall_attention": ("WallAttention", _TWO),
    "stickbreaking_attention": ("StickBreakingAttention", _TWO),
    "parallax": ("Parallax", _TWO),
    "deltaformer": ("DeltaFormerAttention", _TWO),
    "nsa": ("NativeSparseAttention", {**_TWO, **_BLOCKS}),
    "moba": ("MoBA", {**_TWO, "moba_chunk_size": 16, "moba_topk": 2}),
}


# Its kernels take no float32.
HALF = ("parallax",)
# They call flash attention, in whose place a softmax in torch stands.
FLASH_ATTENTION = ("attention", "sliding_attention", "bit_attention", "mla")
# fla computes them in torch where mamba_ssm is not installed.
IN_TORCH = ("mamba", "mamba2", "mamba2_groups")


class OneLayer(nn.Module):
    """An embedding and one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(VOCABULARY, WIDTH), layer

    def forward(self, tokens: Tensor) -> Tensor:
        """The layer's output, (S, L, width)."""
        mixed = self.layer(self.embedding(tokens), attention_mask=None)
        return mixed[0] if isinstance(mixed, tuple) else mixed


def build(name: str) -> OneLayer:
    """The layer of a name with random weights, in eval mode."""
    kind, settings = LAYERS[name]
    torch.manual_seed(0)
    place = "fla.layers.simple_gla" if name == "simple_gla" else "fla.layers"
    layer = getattr(importlib.import_module(place), kind)(**settings)
    with torch.no_grad():
        for key, weight in layer.named_parameters():
            if not key.endswith("norm.weight"):
                # Gates, rates and strengths leave the places where they start, and no projection stays 0.
                weight += (0.3 if weight.ndim < 2 else 0.05) * torch.randn_like(weight)
    return OneLayer(layer).eval()


def tokens(length: int) -> Tensor:
    """Two sequences."""
    return torch.randint(0, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))
