"""Gated DeltaNet of flash-linear-attention with projected states.

Orthonormal columns P (n, r) of each head map its normalised keys and queries, so the states have r numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from fla.layers import GatedDeltaNet
from fla.layers.utils import get_layer_cache, repad_hidden_states, unpad_hidden_states, update_layer_cache
from fla.models import GatedDeltaNetConfig, GatedDeltaNetForCausalLM
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false


KIND = "projected_gated_deltanet"
"""Its `model_type`."""
# As in fla: the addend of squared norms, and the longest sequence that is computed token by token.
_EPSILON, _SHORT = 1e-6, 64


class ProjectedGatedDeltaNetConfig(GatedDeltaNetConfig):
    """The configuration of Gated DeltaNet, where `head_dim` is the size of queries and keys before the projection."""

    model_type = KIND

    def __init__(self, projected_size: int = 64, **settings: Any) -> None:
        super().__init__(**settings)
        self.projected_size = projected_size


class ProjectedGatedDeltaNet(GatedDeltaNet):
    """A layer with `basis`, (heads, n, r)."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(
            hidden_size=config.hidden_size,
            expand_v=config.expand_v,
            head_dim=config.head_dim,
            num_heads=config.num_heads,
            num_v_heads=config.num_v_heads,
            mode=config.attn_mode,
            use_gate=config.use_gate,
            use_short_conv=config.use_short_conv,
            allow_neg_eigval=config.allow_neg_eigval,
            conv_size=config.conv_size,
            layer_idx=layer_idx,
            norm_eps=config.norm_eps,
            output_gate_activation=config.output_gate_activation,
        )
        self.basis = nn.Parameter(torch.zeros(config.num_heads, config.head_dim, config.projected_size))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        output_attentions: bool | None = False,
        **kwargs: Any,
    ) -> tuple[Tensor, None, Any]:
        """The outputs (S, L, hidden), and the cache."""
        del output_attentions
        batch, length, _ = hidden_states.shape
        last = get_layer_cache(self, past_key_values) or {"conv_state": (None, None, None), "recurrent_state": None}
        hidden, indices, ends = unpad_hidden_states(hidden_states, kwargs.get("cu_seqlens"), attention_mask, length)
        mixed, convolved = self._convolved(hidden, last["conv_state"], use_cache, ends)
        query, key, value = (part.unflatten(-1, (heads, -1)) for part, heads in zip(mixed, self._heads, strict=True))
        kernel = fused_recurrent_gated_delta_rule if length <= _SHORT and not self.training else chunk_gated_delta_rule
        output, state = kernel(
            q=self._projected(query),
            k=self._projected(key),
            v=value,
            g=self.a_proj(hidden),
            beta=self.b_proj(hidden),
            scale=self.head_k_dim**-0.5,
            initial_state=last["recurrent_state"],
            output_final_state=use_cache,
            use_qk_l2norm_in_kernel=False,
            use_beta_sigmoid_in_kernel=True,
            allow_neg_eigval=self.allow_neg_eigval,
            state_v_first=True,
            cu_seqlens=ends,
            use_gate_in_kernel=True,
            A_log=self.A_log,
            dt_bias=self.dt_bias,
        )
        conv_state = convolved if self.use_short_conv else None
        update_layer_cache(self, past_key_values, recurrent_state=state, conv_state=conv_state, offset=length)
        gate = (self.g_proj(hidden).unflatten(-1, (self.num_v_heads, -1)),) if self.use_gate else ()
        output = self.o_proj(self.o_norm(output, *gate).flatten(-2))
        return repad_hidden_states(output, indices, batch, length), None, past_key_values

    @property
    def _heads(self) -> tuple[int, int, int]:
        return self.num_heads, self.num_heads, self.num_v_heads

    def _convolved(
        self, hidden: Tensor, caches: Any, use_cache: bool | None, ends: Tensor | None
    ) -> tuple[list[Tensor], tuple[Any, ...]]:
        """Queries, keys and values (S, L, channels), and the caches of their short convolutions."""
        projected = [projection(hidden) for projection in (self.q_proj, self.k_proj, self.v_proj)]
        if not self.use_short_conv:
            return [functional.silu(part) for part in projected], (None, None, None)
        convolutions = (self.q_conv1d, self.k_conv1d, self.v_conv1d)
        results = [
            convolution(x=part, cache=cache, output_final_state=use_cache, cu_seqlens=ends)
            for convolution, part, cache in zip(convolutions, projected, caches, strict=True)
        ]
        return [part for part, _ in results], tuple(cache for _, cache in results)

    def _projected(self, vectors: Tensor) -> Tensor:
        """Normalised vectors (S, L, heads, n) in the basis, (S, L, heads, r)."""
        unit = vectors.float() * torch.rsqrt(vectors.float().square().sum(-1, keepdim=True) + _EPSILON)
        return torch.einsum("slhn,hnr->slhr", unit.to(vectors.dtype), self.basis)


class ProjectedGatedDeltaNetForCausalLM(GatedDeltaNetForCausalLM):
    """A language model of such layers."""

    config_class = ProjectedGatedDeltaNetConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer, block in enumerate(self.model.layers):
            # A hybrid also has layers of attention.
            if isinstance(block.attn, GatedDeltaNet):
                block.attn = ProjectedGatedDeltaNet(config, layer)
        self.post_init()


AutoConfig.register(KIND, ProjectedGatedDeltaNetConfig)
AutoModelForCausalLM.register(ProjectedGatedDeltaNetConfig, ProjectedGatedDeltaNetForCausalLM)
