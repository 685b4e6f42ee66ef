"""One call of a kernel of flash-linear-attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from statesize.adapters.kernels.scans import normalised
from statesize.adapters.observation import ModuleStack, Units, chosen, take
from statesize.adapters.replaced import ReplacedCall, first
from statesize.errors import ModelError

# Arguments that let a kernel go on from an earlier state.
_STATES = ("initial_state", "initial_A_state", "h_kk_init", "h_kv_init")
_PACKED = ("cu_seqlens", "cu_seqlens_q")


@dataclass(frozen=True, eq=False, kw_only=True)
class FlaCall(ReplacedCall):
    """One call of a kernel by a layer, whose output is (S, L, H, P)."""

    function: Callable[..., Any]  # the kernel
    length: int  # positions of the text

    @classmethod
    def made(
        cls,
        running: ModuleStack,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> FlaCall:
        """A call by the module that runs, with packed sequences of the text's length unpacked."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict[str, Any](bound.arguments)
        arguments |= arguments.pop("kwargs", {})
        frame, output = running.frame, first(result)
        arguments, output = _unpacked(frame.name, arguments, output, running)
        return cls(frame.name, frame.module, arguments, output, function=function, length=running.length)

    @property
    def kernel(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def heads(self) -> int:
        """Heads of what it returned."""
        return self.output.shape[2]

    def part(self, name: str, units: Units) -> Tensor:
        """An argument (S, L, heads, …) for the chosen heads, each of which may serve several, (S, chosen, L, …)."""
        return self.by_head(self.arguments[name], units)

    def by_head(self, tensor: Tensor, units: Units) -> Tensor:
        """The same of a tensor."""
        head = chosen(units, self.heads, tensor.device) // (self.heads // tensor.shape[2])
        return take(tensor, head, 2).transpose(1, 2)

    def keys_and_queries(self, units: Units, query: str = "q") -> tuple[Tensor, Tensor]:
        """Keys and scaled queries, (S, chosen, L, n), normalised where the kernel does so."""
        keys, queries = self.part("k", units), self.part(query, units)
        if self.arguments.get("use_qk_l2norm_in_kernel"):
            keys, queries = normalised(keys), normalised(queries)
        scale = self.arguments.get("scale")
        return keys, queries * (keys.shape[-1] ** -0.5 if scale is None else scale)

    def require_whole(self) -> None:
        """Refuse what T would miss: an earlier state, a reversed sequence, a decay or write strength per channel."""
        self.require_no_state(*_STATES)
        if self.arguments.get("reverse"):
            raise ModelError(f"{self.name} must run forward in time, got {self.kernel}(reverse=True).")
        strength = self.arguments.get("beta")
        by_channel = isinstance(strength, Tensor) and strength.ndim == 4
        if self.arguments.get("gv") is not None or by_channel:
            raise ModelError(
                f"{self.name} must have one T per head, got {self.kernel} with a decay or a write strength of each "
                "value channel. statesize measures heads whose channels share their T."
            )


def _unpacked(
    name: str, arguments: dict[str, Any], output: Tensor, running: ModuleStack
) -> tuple[dict[str, Any], Tensor]:
    """Sequences that lie one behind the other, (1, S L, …) or (S L, …), as (S, L, …); or as many steps a position."""
    bounds = next((arguments[packed] for packed in _PACKED if arguments.get(packed) is not None), None)
    if bounds is None:
        return arguments, output
    lengths, sequences = set(bounds.diff().tolist()), len(bounds) - 1
    in_steps = sequences == running.sequences and len(lengths) == 1 and not min(lengths) % running.length
    if not in_steps and lengths != {running.length}:
        raise ModelError(
            f"{name} packs sequences of several lengths into one, so its positions are not those of the text. Give "
            "texts of one length without padding; layers that route tokens to several memories have no T."
        )
    # Flash attention has no dimension for the only sequence.
    leading, total = output.ndim - 3, sequences * running.length

    def unpack(part: Any) -> Any:
        if not isinstance(part, Tensor) or part.ndim < 2 + leading or part.shape[leading] % total:
            return part
        return part.flatten(0, leading).reshape(sequences, -1, *part.shape[leading + 1 :])

    return {key: None if key in _PACKED else unpack(part) for key, part in arguments.items()}, unpack(output)
