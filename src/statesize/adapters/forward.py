"""A model over given inputs, to be run as often as the measurement needs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self, cast

from torch import Tensor, nn

from statesize.adapters.fla.interpreter import interpret_if_asked, needing_a_driver
from statesize.adapters.models.held import device_of, measuring, pretrained_models
from statesize.adapters.models.inputs import Inputs, added_to_scores, check_inputs
from statesize.adapters.replaced import interrupts_held


@dataclass(frozen=True, eq=False)
class Forward:
    """A model and its checked inputs."""

    model: nn.Module
    backbone: nn.Module  # the part that computes the last hidden state; the model itself where that is not known
    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Any]
    length: int  # positions of the text

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs) -> Self:
        """Check token ids (S, L), or what a tokenizer returns, and move them to the model's device."""
        interpret_if_asked()
        pretrained = pretrained_models(model)
        length = check_inputs(pretrained, inputs)
        backbone, device = _backbone(model, pretrained, inputs), device_of(model)
        options = {"use_cache": False} if _accepts(backbone, "use_cache") else {}
        if not isinstance(inputs, Mapping):
            return cls(model, backbone, (inputs.to(device),), options, length)
        arguments = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
        labels = inspect.signature(backbone.forward).parameters.get("labels")
        if labels is None or labels.default is not inspect.Parameter.empty:
            # They request a loss, which takes the logits of every position.
            arguments.pop("labels", None)
        mask = arguments.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 4 and pretrained:
            arguments["attention_mask"] = added_to_scores(mask)
        return cls(model, backbone, (), arguments | options, length)

    @property
    def sequences(self) -> int:
        """Number of texts."""
        values = (*self.args, *self.kwargs.values())
        return next(value.shape[0] for value in values if isinstance(value, Tensor) and value.ndim > 1)

    def hidden(self, attach: Callable[[ExitStack], None] | None = None) -> Tensor | None:
        """The last hidden state (S, L, d) of one run with what `attach` hangs on the model; else its first output."""
        with interrupts_held() as interrupts, ExitStack() as stack:
            stack.enter_context(measuring(self.model))
            if attach is not None:
                attach(stack)
            with interrupts.let_through(), needing_a_driver(self.model):
                output = self.backbone(*self.args, **self.kwargs)
        hidden: object = getattr(output, "last_hidden_state", None)
        return hidden if isinstance(hidden, Tensor) else _first_tensor(output)


def _first_tensor(output: object) -> Tensor | None:
    """The logits of what a model returned, or its first tensor; None where what comes first is none."""
    if isinstance(output, tuple):
        output = next(iter(cast("tuple[object, ...]", output)), None)
    logits: object = getattr(output, "logits", output)
    return logits if isinstance(logits, Tensor) else None


def _backbone(model: nn.Module, pretrained: Sequence[Any], inputs: Inputs) -> nn.Module:
    own = type(model).__module__.startswith(("transformers.models.", "fla.models.")) and "forward" not in vars(model)
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
