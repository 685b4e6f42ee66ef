"""What a chunked kernel of fla rounds: its step form, one token after another, computes the same with less rounding."""

from __future__ import annotations

import inspect
from importlib import import_module

import torch
from torch import Tensor

from statesize.adapters.fla.call import FlaCall
from statesize.adapters.watching.kernel_functions import first

_CHUNKED, _STEPPED = "chunk_", "fused_recurrent_"


@torch.no_grad()
def stepped(call: FlaCall) -> Tensor | None:
    """What fla's own step form makes of a chunked kernel's arguments, (S, L, H, P); None where it has none."""
    if not call.kernel.startswith(_CHUNKED):
        return None
    # Of "fla.ops.rwkv7.chunk", the package: both forms stand there.
    package = import_module(".".join(call.function.__module__.split(".")[:3]))
    form = getattr(package, _STEPPED + call.kernel.removeprefix(_CHUNKED), None)
    if form is None:
        return None
    parameters = inspect.signature(form).parameters
    given = {name: call.arguments[name] for name in parameters if name in call.arguments}
    if any(one.default is one.empty and name not in given for name, one in parameters.items()):
        return None
    try:
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            return first(form(**given))
    except RuntimeError as error:
        # Where Triton has no driver, something else than the kernel was called.
        if "active drivers" not in str(error):
            raise
        return None
