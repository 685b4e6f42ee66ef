"""Recurrences that transformers computes by module-level functions: they are observed where they are called."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from statesize.adapters.kernels.delta_rule import gated_delta_rule, kimi_delta_attention
from statesize.adapters.kernels.mamba import chunk_scan, selective_scan
from statesize.adapters.kernels.rwkv import rwkv_attention
from statesize.adapters.watching.kernel_functions import KernelCall, observed, pure_torch, replaced, source_files
from statesize.adapters.watching.observation import Observation, Record
from statesize.adapters.watching.running import Running

# What makes an Observation of a call, by the name of the function.
KERNELS: dict[str, Callable[[KernelCall], Observation]] = {
    "mamba_selective_scan": selective_scan,
    "mamba2_chunk_scan": chunk_scan,
    "torch_chunk_gated_delta_rule": gated_delta_rule,
    "chunk_kimi_delta_attention": kimi_delta_attention,
    "rwkv_linear_attention": rwkv_attention,
}
CONVOLUTION = "causal_conv1d_fn"
# In training, Mamba-2 asks this first to do scan and convolution at once; its pure-torch body declines.
_WHOLE_BLOCK = "mamba2_split_conv1d_scan_combined"


@contextmanager
def observing(model: nn.Module, running: Running, record: Record) -> Generator[None]:
    """Observe the scans of a model; while this is open they and their short convolutions run in pure torch."""

    def recorder(parse: Callable[[KernelCall], Observation]) -> Callable[[Mapping[str, Any], Tensor], object]:
        return lambda arguments, output: record(partial(parse, KernelCall.by(running.frame, arguments, output)))

    with ExitStack() as changes:
        for file in source_files(model):
            functions = vars(file)
            # Files that do without a package have None in the place of its functions.
            functions = {name: function for name, function in functions.items() if function is not None}
            for name in KERNELS.keys() & functions.keys():
                kernel = observed(functions[name], recorder(KERNELS[name]))
                changes.enter_context(replaced(file, name, kernel))
            for name in {CONVOLUTION, _WHOLE_BLOCK} & functions.keys():
                changes.enter_context(replaced(file, name, pure_torch(functions[name])))
        yield
