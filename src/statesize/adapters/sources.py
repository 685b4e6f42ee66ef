"""The sources of observations: what is watched while a model runs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from torch import nn

from statesize.adapters.fla import mamba as fla_mamba
from statesize.adapters.fla import source as fla
from statesize.adapters.kernels import attention, convolutions, recurrent_layers, scans, softmax_tap
from statesize.adapters.watching.observation import Record, Running, Source

# One line a source: while `observing(model, running, record)` is open, each call of its kernels makes one Observation.
SOURCES: tuple[Source, ...] = (
    attention.observing,
    softmax_tap.observing,
    scans.observing,
    convolutions.observing,
    recurrent_layers.observing_rg_lru,
    recurrent_layers.observing_mlstm,
    recurrent_layers.observing_lightning,
)
# Only where a model brought fla with it.
FLA_SOURCES: tuple[Source, ...] = (fla.observing, fla_mamba.observing)


@contextmanager
def observing_all(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Open every source."""
    with ExitStack() as sources:
        for source in (*SOURCES, *(FLA_SOURCES if "fla" in sys.modules else ())):
            sources.enter_context(source(model, running, record))
        yield
