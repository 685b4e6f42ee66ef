"""The sources of observations, which are watched while a model runs."""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import partial
from importlib import import_module

from statesize.adapters.models.model_state import NamedModules
from statesize.adapters.observation import OpenSource, Source
from statesize.adapters.replaced import source_files

Named = tuple[str, Collection[str], str]
"""A module, names of classes or functions by which files of a model's layers ask for it, and the source in it."""

SCANS = (
    *("mamba_selective_scan", "mamba2_chunk_scan", "torch_chunk_gated_delta_rule", "chunk_kimi_delta_attention"),
    *("rwkv_linear_attention", "causal_conv1d_fn", "mamba2_split_conv1d_scan_combined"),
)
# One line a source: while `observing(files, running, record)` is open, each call of its kernels makes one Observation.
SOURCES: tuple[Source | Named, ...] = (
    ("kernels.attention", {"ALL_ATTENTION_FUNCTIONS", "DiffLlamaAttention"}, "observing"),
    ("kernels.scans", SCANS, "observing"),
    ("kernels.recurrent_layers", {"Lfm2ShortConv", "Lfm2MoeShortConv", "Lfm3ShortConv"}, "observing_convolutions"),
    ("kernels.recurrent_layers", {"RecurrentGemmaRecurrentBlock"}, "observing_rg_lru"),
    ("kernels.recurrent_layers", {"xLSTMLayer"}, "observing_mlstm"),
    ("kernels.recurrent_layers", {"MiniMaxLightningAttention"}, "observing_lightning"),
    ("fla.source", {"fla"}, "observing"),
    ("fla.mamba", {"fla"}, "observing_mamba"),
    ("fla.mamba", {"fla"}, "observing_mamba2"),
)


def sources_of(parts: NamedModules) -> list[OpenSource]:
    """Every source that a model may need, over the files of all its parts: also where one of them runs alone."""
    files = source_files(parts)
    classes = (kind.__name__ for _, part in parts for kind in type(part).__mro__)
    # A library counts as named once it was imported.
    names = ({"fla"} & sys.modules.keys()).union(classes, *map(vars, files))
    needed = list[OpenSource]()
    for source in SOURCES:
        if not callable(source):
            module, asked, observing = source
            if names.isdisjoint(asked):
                continue
            source = getattr(import_module(f"statesize.adapters.{module}"), observing)
        needed.append(partial(source, files))
    return needed


KEEPS_THE_TEXT = frozenset({"attention", "differential attention", "forgetting attention"})
"""Kinds of mixers whose theoretical state-size at position i is i."""
