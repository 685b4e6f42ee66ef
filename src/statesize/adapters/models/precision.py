"""Precision: what a model holds and computes in, its runs in float64, and what rounding explains."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from statesize.adapters.models.model_state import mapped
from statesize.errors import InputError

Autocast = tuple[tuple[str, torch.dtype], ...]
"""The types of devices for which autocast is on, each with its dtype."""


def open_autocast() -> Autocast:
    """The autocast at this place of a run."""
    devices = ("cpu", "cuda", "mps", "xpu")
    return tuple((device, torch.get_autocast_dtype(device)) for device in devices if torch.is_autocast_enabled(device))


def set_autocast(autocast: Autocast, stack: ExitStack) -> None:
    """Let a module run alone in the autocast that it had in the model."""
    for device, dtype in autocast:
        stack.enter_context(torch.autocast(device, dtype))


STORED = "_statesize_stored"
"""The attribute of a copy of a weight that has the weight as the model holds it."""


def hold_in_single(model: nn.Module) -> None:
    """Turn a model of half precision into one of float32, for good; its stored dtype is remembered."""
    for tensor in filter(is_low, (*model.parameters(), *model.buffers())):
        setattr(tensor, STORED, torch.empty(0, dtype=tensor.dtype))
        tensor.data = in_dtype(tensor.data, torch.float32)


def low_bytes(model: nn.Module) -> int:
    """Bytes of the parameters of less than 32 bits."""
    return sum(parameter.nbytes for parameter in model.parameters() if is_low(parameter))


def stored_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a module's weights as the model holds them, whatever they are while it runs."""
    for parameter in module.parameters():
        if _is_inexact(parameter):
            return cast("Tensor", getattr(parameter, STORED, parameter)).dtype.to_real()
    return torch.float32


def is_low(tensor: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a tensor holds floating-point numbers, real or complex, of fewer bits than a dtype has."""
    return _is_inexact(tensor) and tensor.dtype.to_real().itemsize < dtype.itemsize


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A module, turned for good, or a tensor in a dtype: complex numbers stay complex, and others what they are."""
    if isinstance(value, nn.Module):
        return cast("Any", value)._apply(partial(in_dtype, dtype=dtype))
    if not isinstance(value, Tensor) or not _is_inexact(value):
        return value
    return value.to(torch.promote_types(dtype, torch.complex64) if value.is_complex() else dtype)


def at_least(value: object, dtype: torch.dtype) -> Any:
    """Floating-point tensors of fewer bits in a dtype, in lists, tuples and mappings too."""
    return mapped(
        value, lambda leaf: in_dtype(leaf, dtype) if isinstance(leaf, Tensor) and is_low(leaf, dtype) else leaf
    )


@contextmanager
def differentiable(dtype: torch.dtype) -> Generator[None]:
    """Kernels that have derivatives of derivatives; for a run in float64, no part of it in float32."""
    # Other kernels of attention have neither forward mode nor double backward.
    with cast("Any", sdpa_kernel(SDPBackend.MATH)), _InDouble() if dtype is torch.float64 else nullcontext():
        yield


def hold_at_least(module: nn.Module, dtype: torch.dtype, stack: ExitStack, device: torch.device | None = None) -> None:
    """Let a module compute in a dtype, and on a device if it is given, until its run ends, by copies of tensors."""
    # The run that the stack belongs to puts the originals back. An embedding is looked up as it is.
    for part in module.modules():
        held = vars(part)
        for tensors in cast("tuple[dict[str, Tensor | None], ...]", (held["_parameters"], held["_buffers"])):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                is_raised = is_low(tensor, dtype) and type(part) is not nn.Embedding
                if not is_raised and device in (None, tensor.device):
                    continue
                copied = tensor.detach().to(device=device)
                copied = in_dtype(copied, dtype) if is_raised else copied
                if isinstance(tensor, nn.Parameter):
                    copied = nn.Parameter(copied, requires_grad=False)
                setattr(copied, STORED, getattr(tensor, STORED, tensor))
                tensors[name] = copied
    if dtype is torch.float64:
        # Also what it casts or makes on its way.
        mode = _InDouble()
        mode.stored = stored_dtype(module)
        stack.enter_context(cast("Any", mode))


def arithmetic_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Let code compute in float64 throughout, where it is given a tensor of float64."""
    return _InDouble() if tensor.dtype is torch.float64 else nullcontext()


# torch's stubs have no casts to complex numbers.
_tensor: Any = Tensor
_CASTS: dict[Any, Callable[[Any], Any]] = {
    **dict.fromkeys((Tensor.float, Tensor.half, Tensor.bfloat16), Tensor.double),
    _tensor.cfloat: _tensor.cdouble,
}
_ARITHMETIC = frozenset(
    "add sub rsub mul rmul div rdiv truediv rtruediv true_divide pow rpow exp exp2 expm1 log log2 log10 log1p sqrt "
    "rsqrt reciprocal sin cos tan tanh sigmoid softmax mean".split()
)
_DOUBLED = frozenset({torch.float32, torch.float16, torch.bfloat16, torch.complex64})
_NORMS = frozenset({functional.rms_norm, torch.rms_norm})
_RMS_NORM = inspect.signature(functional.rms_norm)


class _InDouble(TorchFunctionMode):
    """Replaces lower precisions by float64 in calls of torch: in casts, as in norms, and in what they return."""

    stored = torch.float64  # the dtype in which the model holds its weights

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return _CASTS[func](args[0])
        if func in _NORMS and self.stored in _DOUBLED:
            # Its default depends on the dtype: for all lower ones it is that of float32.
            bound = _RMS_NORM.bind(*args, **(kwargs or {}))
            if bound.arguments.get("eps") is None:
                bound.arguments["eps"] = torch.finfo(torch.float32).eps
            args, kwargs = bound.args, bound.kwargs
        named = {name: _double(value) for name, value in (kwargs or {}).items()}
        result = func(*(_double(value) for value in args), **named)
        if not isinstance(result, Tensor) or result.dtype not in _DOUBLED:
            return result
        name = getattr(func, "__name__", "")
        tensors = [value for value in args if isinstance(value, Tensor)]
        of_integers = name.strip("_") in _ARITHMETIC and not any(tensor.is_floating_point() for tensor in tensors)
        if result.dtype is torch.float32 and of_integers:
            # 0.9 ** distance would round in float32 before it is cast.
            result = func(*(value.double() if isinstance(value, Tensor) else value for value in args), **named)
        # New tensors have the default dtype. What is written in place stays the tensor that it was.
        return result if name.endswith("_") and name != "__get__" else in_dtype(result, torch.float64)


def _double(value: Any) -> Any:
    if not isinstance(value, torch.dtype) or value not in _DOUBLED:
        return value
    return torch.complex128 if value.is_complex else torch.float64


# What other arithmetic may differ by, by the dtype of the weights: sums over the channels of a head and over positions.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ROUNDED = 1e-2
"""The largest difference between a layer's own arithmetic and float64 that is measured."""
MOST_ROUNDED = 5e-2
"""The same of a softmax of large scores. Beyond it, rounding decides what the layer weighs."""


def coarsest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The dtype that rounds most."""
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def kernel_dtype(dtype: torch.dtype, mixed: Tensor) -> torch.dtype:
    """The dtype as which a kernel of Triton rounds: on a GPU it keeps ten bits of float32, TF32, as float16 does."""
    return torch.float16 if dtype is torch.float32 and mixed.is_cuda else dtype


def allowed(difference: float, dtype: torch.dtype, largest_score: Callable[[], float]) -> float:
    """How far rounding in a dtype may take a layer's output, relative to the largest value."""
    # Arithmetic of unit roundoff u rounds a score s by about u s (Higham 2002, section 3.1), and an error ε of the
    # scores changes the weights of a softmax by at most 2 ε, relatively. Scores are only made where the bound of the
    # dtype is not enough.
    limit = BOUNDS[dtype]
    if difference <= limit:
        return limit
    return min(limit + torch.finfo(dtype).eps / 2 * largest_score(), MOST_ROUNDED)


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors over the largest absolute value of the second."""
    if not reference.numel():
        return 0.0
    difference, scale = (value - reference).abs().max().item(), reference.abs().max().item()
    return difference / scale if scale else (float("inf") if difference else 0.0)


def check_finite(name: str, unit: str, what: str, tensor: Tensor) -> None:
    """Refuse a tensor (sequence, unit, position, …) with NaN or infinity, and say where the first one is."""
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        sequence, index, position = (int(coordinate) for coordinate in (~finite).nonzero()[0, :3])
        raise InputError(
            f"Mixer {name}, sequence {sequence}, {unit} {index}: {what} NaN or infinity, first at position {position}. "
            "Check the model's weights and inputs for values that are not finite."
        )
