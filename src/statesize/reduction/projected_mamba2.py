"""Mamba-2 of transformers with projected states: matrices K, Q (n, r) of each group of heads map B, C to B K, C Q.

The r numbers of a state combine the n of the original model; a head has one decay, so every combination decays alike.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false

# An import statement would let a type checker read all models of transformers, which takes longer than all else.
_mamba2: Any = import_module("transformers.models.mamba2.modeling_mamba2")

KIND = "projected_mamba2"
"""Its `model_type`."""


class ProjectedMamba2Config(Mamba2Config):
    """The configuration of Mamba-2, where `state_size` is the size of B and C before the projection."""

    model_type = KIND
    projected_size: int = 64


class ProjectedMamba2Mixer(_mamba2.Mamba2Mixer):
    """A mixer with `key_map` and `query_map`, (groups, n, r)."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        shape = (config.n_groups, config.state_size, config.projected_size)
        self.key_map, self.query_map = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(
        self, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """The outputs (S, L, hidden); reads and updates the cache, if any."""
        hidden_states = _mamba2.apply_mask_to_padding_states(hidden_states, attention_mask)
        sizes = [self.intermediate_size, self.conv_dim, self.num_heads]
        gate, mixed, step = self.in_proj(hidden_states).split(sizes, dim=-1)
        mixed = self._convolved(mixed.mT, cache_params, **kwargs).mT
        values, B, C = self._projected(_mamba2.apply_mask_to_padding_states(mixed, attention_mask))
        A = -torch.exp(self.A_log.float())
        state = None if cache_params is None else cache_params.get_recurrent_state(self.layer_idx, state_idx=0)
        if state is not None and hidden_states.shape[1] == 1:
            scanned = _mamba2.mamba2_selective_state_update(
                state,
                values[:, 0],
                step[:, 0, :, None].expand(-1, -1, self.head_dim),
                A[:, None, None].expand(-1, self.head_dim, B.shape[-1]),
                B[:, 0],
                C[:, 0],
                self.D[:, None].expand(-1, self.head_dim),
                dt_bias=self.dt_bias[:, None].expand(-1, self.head_dim),
                dt_softplus=True,
                **kwargs,
            )
        else:
            scanned = _mamba2.mamba2_chunk_scan(
                *(values, step, A, B, C),
                chunk_size=self.chunk_size,
                D=self.D,
                dt_bias=self.dt_bias,
                initial_states=state,
                dt_softplus=True,
                dt_limit=self.time_step_limit,
                return_final_states=cache_params is not None,
                **kwargs,
            )
            if cache_params is not None:
                scanned, final = scanned
                cache_params.update_recurrent_state(final, layer_idx=self.layer_idx)
        scanned = scanned.reshape(*hidden_states.shape[:2], self.intermediate_size)
        return self.out_proj(self.norm(scanned, gate).to(hidden_states.dtype))

    def _convolved(self, mixed: Tensor, cache: Any, **kwargs: Any) -> Tensor:
        """The short convolution of (S, channels, L); the cache holds its last inputs."""
        weights = (self.conv1d.weight.squeeze(1), self.conv1d.bias)
        length = mixed.shape[-1]
        if cache is None:
            return _mamba2.causal_conv1d_fn(mixed, *weights, activation=self.activation, **kwargs)
        last = cache.get_conv_state(self.layer_idx, state_idx=0)
        if last is not None and length == 1 and not cache.is_recording_past(self.layer_idx):
            return _mamba2.causal_conv1d_update(mixed, last, *weights, activation=self.activation)
        mixed = cache.update_conv_state(mixed, self.layer_idx, conv_kernel_size=self.conv_kernel_size)
        return _mamba2.causal_conv1d_fn(mixed, *weights, activation=self.activation, **kwargs)[:, :, -length:]

    def _projected(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (S, L, heads, channels), B K and C Q (S, L, groups, r)."""
        n = self.n_groups * self.ssm_state_size
        values, B, C = mixed.split([self.intermediate_size, n, n], dim=-1)
        B, C = (
            torch.einsum("slgn,gnr->slgr", part.unflatten(-1, (self.n_groups, -1)), part_map)
            for part, part_map in ((B, self.key_map), (C, self.query_map))
        )
        return values.unflatten(-1, (self.num_heads, -1)), B, C


class ProjectedMamba2ForCausalLM(_mamba2.Mamba2ForCausalLM):
    """A language model of such mixers."""

    config_class = ProjectedMamba2Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer, block in enumerate(self.backbone.layers):
            block.mixer = ProjectedMamba2Mixer(config, layer)
        self.post_init()


AutoConfig.register(KIND, ProjectedMamba2Config)
AutoModelForCausalLM.register(ProjectedMamba2Config, ProjectedMamba2ForCausalLM)
