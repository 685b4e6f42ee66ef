"""A model over given inputs, to be run as often as the measurement needs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.inputs import Inputs, Measured, added_to_scores, check_inputs, mask_of
from statesize.adapters.models.layout import axis_by_modules
from statesize.adapters.models.model_state import device_of, mapped, named_parts, pretrained_models
from statesize.adapters.models.precision import ROUNDED, relative_difference
from statesize.adapters.models.quantised import UNCOMPARED
from statesize.adapters.models.sharded import class_of
from statesize.adapters.observation import Frame
from statesize.adapters.runs import bare, read
from statesize.errors import ModelError

# Arguments by which attention of transformers takes keys and values of another sequence.
_OTHER_SEQUENCES = ("key_value_states", "encoder_hidden_states")


@dataclass(frozen=True, eq=False)
class Forward:
    """A model and its checked inputs."""

    model: nn.Module
    backbone: nn.Module  # the part that computes the last hidden state; the model itself where that is not known
    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Any]
    measured: Measured
    length: int  # positions of a text

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs, axis: int | None = None) -> Self:
        """Check token ids (S, L), frames, or what a tokenizer returns, and move them to the model's device."""
        if "fla" in sys.modules:
            from statesize.adapters.models.triton_interpreter import interpret_if_asked

            interpret_if_asked()
        measured = check_inputs(model, inputs, axis)
        forward = cls._placed(model, inputs, measured)
        if measured.axis is not None:
            if (given := UNCOMPARED.get(model)) is not None:
                _check_copy(forward, cls._placed(given, inputs, measured))
                del UNCOMPARED[model]
            return forward
        frames = forward.args[0] if forward.args else forward.kwargs[measured.name]
        axis = axis_by_modules(model, frames, lambda enter: forward.hidden(read, enter=enter, leave={}))
        return cls.of(model, inputs, axis)

    @classmethod
    def _placed(cls, model: nn.Module, inputs: Inputs, measured: Measured) -> Self:
        pretrained = pretrained_models(model)
        backbone, device = _backbone(model, pretrained, inputs), device_of(model)
        options = {"use_cache": False} if _accepts(backbone, "use_cache") else {}
        if not isinstance(inputs, Mapping):
            return cls(model, backbone, (inputs.to(device),), options, measured, measured.length)
        moved = mapped(dict(inputs), lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)
        arguments = cast("dict[str, Any]", moved)
        labels = inspect.signature(backbone.forward).parameters.get("labels")
        if labels is None or labels.default is not inspect.Parameter.empty:
            # They request a loss, which takes the logits of every position.
            arguments.pop("labels", None)
        mask = arguments.get(mask_of(measured))
        if isinstance(mask, Tensor) and mask.ndim == 4 and pretrained:
            arguments[mask_of(measured)] = added_to_scores(mask)
        return cls(model, backbone, (), arguments | options, measured, measured.length)

    @staticmethod
    def backbone_of(model: nn.Module, inputs: Inputs) -> nn.Module:
        """The part of a model that computes the last hidden state of these inputs."""
        return _backbone(model, pretrained_models(model), inputs)

    @property
    def sequences(self) -> int:
        """Number of texts."""
        return self.measured.sequences

    @property
    def is_of_frames(self) -> bool:
        """Whether what is measured has other dimensions than sequences and positions."""
        return len(self.measured.shape) > 2

    @cached_property
    def _encoder(self) -> str | None:
        """The name of the module that reads another sequence than what a decoder reads."""
        encoder = cast("Any", self.model).get_encoder()
        return next((name for name, module in named_parts(self.model) if module is encoder), None)

    def reads_elsewhere(self, frame: Frame) -> str:
        """Why what runs in a module mixes no measured positions; "" where it may."""
        if self.measured.decodes and (reason := self.in_encoder(frame.name)):
            return reason
        parameters = list(inspect.signature(frame.module.forward).parameters)
        arguments = dict(zip(parameters, frame.args, strict=False)) | frame.kwargs
        other = next((name for name in _OTHER_SEQUENCES if arguments.get(name) is not None), None)
        if other is None:
            return ""
        return (
            f"Mixer {frame.name} is cross-attention: it attends to another sequence, its {other}, which is held fixed."
        )

    def in_encoder(self, name: str) -> str:
        """Why a module of the encoder is not measured; "" for others."""
        if not self.measured.decodes or not self._encoder or not f"{name}.".startswith(f"{self._encoder}."):
            return ""
        return f"{name} is part of the encoder, whose sequence is held fixed; measured is {self.measured.name}."

    def hidden(self, run: Callable[..., Any] = bare, **options: Any) -> Tensor | None:
        """The last hidden state (S, L, d) of one of the `runs`, which takes the options; else its first output."""

        def call() -> Any:
            try:
                return self.backbone(*self.args, **self.kwargs)
            except RuntimeError as error:
                if "active drivers" not in str(error):
                    raise
                from statesize.adapters.models.triton_interpreter import without_driver

                raise without_driver(self.model) from error

        output = run(self.model, call, **options)
        hidden: object = getattr(output, "last_hidden_state", None)
        return hidden if isinstance(hidden, Tensor) else _first_tensor(output)


def _check_copy(copied: Forward, given: Forward) -> None:
    """Refuse a copy in floating point whose last hidden state is not that of the quantised model."""
    hidden, expected = copied.hidden(), given.hidden()
    if hidden is None or expected is None or not bool(torch.isfinite(expected).all()):
        return
    # Quantised weights are often multiplied in half precision, whatever the dtype of what a layer is given.
    difference = relative_difference(hidden.to(expected), expected)
    if not difference <= ROUNDED:
        raise ModelError(
            f"{type(given.model).__name__} is not its copy in floating point: their last hidden states differ by "
            f"{difference:.1e} of the largest value; at most {ROUNDED:.0e} is rounding. Its layers round what they are "
            "given too, or an earlier run has packed its weights otherwise, as bitsandbytes does on a CPU. Load it "
            "anew, in float32, and measure it before it runs; or give the model that was quantised."
        )


def _first_tensor(output: object) -> Tensor | None:
    """The logits of what a model returned, or its first tensor; None where what comes first is none."""
    if isinstance(output, tuple):
        output = next(iter(cast("tuple[object, ...]", output)), None)
    logits: object = getattr(output, "logits", output)
    return logits if isinstance(logits, Tensor) else None


def _backbone(model: nn.Module, pretrained: Sequence[Any], inputs: Inputs) -> nn.Module:
    file = class_of(model).__module__
    own = file.startswith(("transformers.models.", "fla.models.")) and "forward" not in vars(model)
    hooked = vars(model)["_forward_hooks"] or vars(model)["_forward_pre_hooks"]
    # A derived class, hooks or a forward of its own may do something around the backbone.
    if model not in pretrained[:1] or not own or hooked:
        return model
    inner = cast("Any", model).base_model
    names = set(inputs) - {"labels"} if isinstance(inputs, Mapping) else ()
    return inner if all(_accepts(inner, name) for name in names) else model


def _accepts(model: nn.Module, name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    if name in parameters:
        return True
    # A wrapper hands what it does not know to the transformers model inside.
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return False
    wrapped = pretrained_models(model)
    return bool(wrapped) and (wrapped[0] is not model or inspect.Parameter.VAR_POSITIONAL in kinds)
