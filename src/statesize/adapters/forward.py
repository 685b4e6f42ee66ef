"""A model over given inputs, which are checked first, to be run as often as the measurement needs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from traceback import walk_tb
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from statesize.adapters.models.layout import axis_by_modules
from statesize.adapters.models.model_state import (
    NamedModules,
    device_of,
    is_a,
    mapped,
    named_parts,
    pretrained_models,
    returned_tensor,
    tensors_in,
    token_embedding,
)
from statesize.adapters.models.precision import ROUNDED, relative_difference, stored_dtype
from statesize.adapters.models.quantised import UNCOMPARED
from statesize.adapters.observation import Frame, OpenSource
from statesize.adapters.other_inputs import Change
from statesize.adapters.runs import bare, read
from statesize.adapters.sources import sources_of
from statesize.check import refuse, whole_number
from statesize.errors import InputError, ModelError
from statesize.parallel.threads import one_thread

Inputs = Tensor | Mapping[str, Any]
_HOW_TO_GIVE = 'Give torch.tensor([ids]), or what the tokenizer returns with return_tensors="pt".'
_UNPADDED = "give texts of different length one after another, without it."
_CACHES = ("past_key_values", "cache_params", "state")
DECODED = ("decoder_input_ids", "decoder_inputs_embeds", "decoder_input_values", "future_values")
_TOKENS = ("input_ids", "decoder_input_ids")


@dataclass(frozen=True)
class Measured:
    """Whose positions are measured."""

    name: str  # the argument of the model that holds them; "" for a tensor that is given alone
    # Their dimension there, or None where frames of three dimensions do not tell before the model runs; sequences lie
    # on dimension 0, or on 1 where this is 0.
    axis: int | None
    shape: tuple[int, ...]
    decodes: bool  # whether a decoder reads them, and an encoder what the other arguments hold

    @property
    def length(self) -> int:
        """Number of positions."""
        return self.shape[1 if self.axis is None else self.axis]

    @property
    def sequence_axis(self) -> int:
        """The dimension of sequences."""
        return int(self.axis == 0)


@dataclass(frozen=True)
class Placed:
    """The dimension of positions of what enters and leaves a module; None where it follows from none, as of a mask."""

    entering: tuple[int | None, ...]  # of each tensor, in order
    leaving: int | None


_OTHER_SEQUENCES = ("key_value_states", "encoder_hidden_states")  # of which attention takes keys and values


@dataclass(frozen=True, eq=False)
class Forward:
    """A model and its checked inputs."""

    model: nn.Module
    parts: NamedModules  # its modules
    backbone: nn.Module  # the part that computes the last hidden state; the model itself where that is not known
    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Any]
    measured: Measured
    length: int  # positions of a text
    sequences: int  # number of texts
    # Where positions lie in what enters and leaves its modules, of those that were asked for.
    placed: dict[nn.Module, Placed] = field(default_factory=dict[nn.Module, Placed])

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs, axis: int | None = None) -> Self:
        """Check token ids (S, L), frames, or what a tokenizer returns, and move them to the model's device."""
        parts = named_parts(model)
        measured = check_inputs(parts, inputs, axis)
        backbone, device = backbone_of(model, inputs), device_of(model)
        args, arguments = tuple[Tensor, ...](), dict[str, Any]()
        if isinstance(inputs, Mapping):
            arguments |= mapped(dict(inputs), lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)
            labels = inspect.signature(backbone.forward).parameters.get("labels")
            if labels is None or labels.default is not inspect.Parameter.empty:
                # They request a loss, which takes the logits of every position.
                arguments.pop("labels", None)
        else:
            args = (inputs.to(device),)
        if _accepts(backbone, "use_cache"):
            arguments["use_cache"] = False
        sequences = measured.shape[measured.sequence_axis]
        forward = cls(model, parts, backbone, args, arguments, measured, measured.length, sequences)
        if measured.axis is not None:
            if (given := vars(model).get(UNCOMPARED)) is not None:
                _check_copy(forward, forward.of_model(given, inputs))
                del vars(model)[UNCOMPARED]
            return forward
        frames = args[0] if args else arguments[measured.name]
        axis = axis_by_modules(model, frames, lambda enter: forward.hidden(read, enter=enter, leave={}))
        return cls.of(model, inputs, axis)

    def of_model(self, model: nn.Module, inputs: Inputs) -> Self:
        """The same inputs for a copy of the model."""
        return replace(self, model=model, parts=named_parts(model), backbone=backbone_of(model, inputs))

    def with_texts(self, change: Change) -> Self:
        """Let the model read what a change makes of its texts."""
        name, axis = self.measured.name, self.measured.axis
        kwargs = self.kwargs if self.args else {**self.kwargs, name: change(self.kwargs[name].clone(), axis)}
        return replace(self, args=tuple(change(texts.clone(), axis) for texts in self.args), kwargs=kwargs)

    def sequences_in(self, arguments: object) -> int:
        """How many of the texts the arguments of a module hold: nearly always all, but one where it takes one each."""
        placed = [tensor for tensor in tensors_in(arguments) if tensor.ndim > 1 and self.length in tensor.shape]
        alone = (1 in tensor.shape[:2] or (tensor.ndim == 2 and len(tensor) == self.length) for tensor in placed)
        return 1 if placed and all(alone) else self.sequences

    @cached_property
    def sources(self) -> list[OpenSource]:
        """The sources that its observed runs open, chosen once: a part that runs alone is observed as in the model."""
        return sources_of(self.parts)

    @cached_property
    def _encoder(self) -> str | None:
        """The name of the module that reads another sequence than what a decoder reads."""
        encoder = cast("Any", self.model).get_encoder()
        return next((name for name, module in self.parts if module is encoder), None)

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
        """The last hidden state (S, L, d) of one of the `runs`, with options; else logits or its first output."""
        output: object = run(self.model, partial(self.called, *self.args, **self.kwargs), **options)
        named = (getattr(output, name, None) for name in ("last_hidden_state", "logits"))
        hidden = next((value for value in named if isinstance(value, Tensor)), output)
        return returned_tensor(hidden, (self.args, self.kwargs), self.length)

    def called(self, *args: Any, **kwargs: Any) -> Any:
        """What the backbone returns; an InputError where it refuses ids or frames, a ModelError without a driver."""
        try:
            return self.backbone(*args, **kwargs)
        except Exception as error:  # whatever a layer of one's own raises where it is given ids
            self._explain(error)
            raise

    def _explain(self, error: Exception) -> None:
        """Say what is wrong with frames, ids or their number, where the model or an embedding refused."""
        name, kind, said = self.measured.name or "inputs", type(self.model).__name__, str(error).partition("\n")[0]
        given = cast("Tensor", self.args[0] if self.args else self.kwargs[self.measured.name])
        held, is_of_torch = stored_dtype(self.model), isinstance(error, RuntimeError)
        if is_of_torch and "active drivers" in said:
            raise ModelError(
                f"{kind} must run where Triton does, because it calls kernels of flash-linear-attention, got a machine "
                "without a driver for them. Run it on a GPU, or without flash-linear-attention."
            ) from error
        if not given.is_floating_point() and not any(isinstance(part, nn.Embedding) for _, part in self.parts):
            raise InputError(
                f"{name} must be hidden states of shape (sequences, positions, channels) for {kind}, which has no "
                f"embedding, got integers of shape {tuple(given.shape)}. Give what enters the layer in its model, or "
                "measure the whole model."
            ) from error
        for frame, _ in walk_tb(error.__traceback__):
            embedding, ids = frame.f_locals.get("self"), frame.f_locals.get("input")
            if not isinstance(embedding, nn.Embedding) or not isinstance(ids, Tensor):
                continue
            if ids.dtype is given.dtype and ids.shape == given.shape and torch.equal(ids, given):
                _check_ids(name, ids, embedding)
            elif self.length > (count := embedding.num_embeddings):
                raise TooLongError(
                    f"{name} must have at most {count} tokens, for which the model has positions, got {self.length}. "
                    "Give shorter texts."
                ) from error
        is_low = held.itemsize < torch.float32.itemsize and not isinstance(error, torch.OutOfMemoryError)
        if is_of_torch and (given.is_floating_point() or is_low):
            raise InputError(
                f"{name} must be what enters {kind}, whose weights are in {held}, got shape {tuple(given.shape)} in "
                f"{given.dtype}, of which it says: {said}. Give what enters it in its model, or load it in float32."
            ) from error


class TooLongError(InputError, IndexError):
    """More tokens than a model has positions for."""


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
            f"{difference:.1e} of the largest value; at most {ROUNDED:.0e} is rounding. Load it anew, in float32, and "
            "measure it before it runs; or give the model that was quantised."
        )


def few_threads(parts: NamedModules) -> AbstractContextManager[None]:
    """One thread of torch for a small model: on a busy machine, threads that wait for each other take most time."""
    weights = (weight.numel() for _, part in parts for weight in part.parameters(recurse=False))
    return one_thread() if sum(weights) < 2**24 else nullcontext()


def backbone_of(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The part of a model that computes the last hidden state of these inputs."""
    file = type(model).__module__
    own = file.startswith(("transformers.models.", "fla.models.")) and "forward" not in vars(model)
    hooked = vars(model)["_forward_hooks"] or vars(model)["_forward_pre_hooks"]
    # A derived class, hooks or a forward of its own may do something around the backbone.
    if not own or hooked or not is_a(model, ("PreTrainedModel",), "transformers"):
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
    wrapped = pretrained_models(named_parts(model))
    return bool(wrapped) and (wrapped[0] is not model or inspect.Parameter.VAR_POSITIONAL in kinds)


def check_inputs(parts: NamedModules, inputs: Inputs, axis: int | None = None) -> Measured:
    """Refuse what is no whole text of one length for the models of transformers in a model; what is measured of it."""
    model, pretrained = parts[0][1], pretrained_models(parts)
    named: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    name = _measured_argument(model, pretrained, inputs)
    values = cast("object", named.get(name) if isinstance(inputs, Mapping) else inputs)
    shown = name or ("inputs" if isinstance(values, Tensor) and values.ndim > 2 else "input_ids")
    if (cache := next((argument for argument in _CACHES if named.get(argument) is not None), None)) is not None:
        raise InputError(f"{cache} must be left out, got one: statesize measures a whole text at once.")
    if not isinstance(values, Tensor) or values.ndim < 2:
        what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{shown} must be a tensor of shape (sequences, positions), got {what}. {_HOW_TO_GIVE}")
    decodes = name in DECODED
    masking = "decoder_attention_mask" if decodes else "attention_mask"
    measured = Measured(name, _axis(shown, values, axis), tuple(values.shape), decodes)
    if measured.length < 2 and measured.axis is not None:
        what = "positions" if values.is_floating_point() else "tokens"
        raise InputError(f"{shown} must have at least 2 {what}, for a past and a future, got {measured.length}.")
    if masking in named:
        check_mask(named[masking], masking)
    main = getattr(next(iter(pretrained), None), "main_input_name", "")
    if pretrained and values.ndim == 2 and (name in _TOKENS or (not name and main in _TOKENS)):
        # An encoder may read other tokens than the decoder.
        reader = pretrained[0].get_decoder() if decodes else pretrained[0]
        _check_ids(shown, values, token_embedding(reader))
        pad = getattr(pretrained[0].config.get_text_config(decoder=decodes or None), "pad_token_id", None)
        # A single one may be a mark at a text's border, which many models write with the token for padding.
        padded = torch.zeros_like(values, dtype=torch.bool) if pad is None else values == pad
        if bool((padded[:, :2].all(1) | padded[:, -2:].all(1)).any()):
            raise InputError(f"{shown} begin or end with several padding tokens (id {pad}); {_UNPADDED}")
    return measured


def check_mask(mask: object, name: str = "attention_mask") -> None:
    """Refuse a mask of tokens that hides a part of the text; one of pairs of tokens is the model's to take."""
    if isinstance(mask, Tensor) and mask.ndim < 3 and not bool(mask.all()):
        raise InputError(f"{name} marks padding; {_UNPADDED}")


def _measured_argument(model: nn.Module, pretrained: Sequence[Any], inputs: Inputs) -> str:
    """The argument whose positions are measured: what a decoder reads, tokens, or what the model takes first."""
    named: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    parameters = list(inspect.signature(model.forward).parameters)
    if model in pretrained[:1] and cast("Any", model).config.is_encoder_decoder:
        decoded = [name for name in DECODED if name in parameters]
        if given := [name for name in decoded if named.get(name) is not None]:
            return given[0]
        if decoded:
            read = str(getattr(model, "main_input_name", "input_ids"))
            raise InputError(
                f"inputs must hold {decoded[0]}, whose memory is measured, for {type(model).__name__}, an "
                f'encoder–decoder model. Give {{"{read}": …, "{decoded[0]}": …}}: what its encoder reads is held fixed.'
            )
    if not isinstance(inputs, Mapping):
        return ""
    main = [str(part.main_input_name) for part in pretrained[:1]]
    tensors = (name for name, value in named.items() if isinstance(value, Tensor))
    order = ("input_ids", "inputs_embeds", *main, *parameters, *tensors)
    return next((name for name in order if named.get(name) is not None and "mask" not in name), "input_ids")


def _axis(name: str, values: Tensor, axis: int | None) -> int | None:
    """The dimension of positions that is named or plain; None where the modules of the model have to tell."""
    if axis is not None:
        number = whole_number(axis)
        if number is None or not -values.ndim <= number < values.ndim:
            refuse("axis", f"a dimension of {name}, which has shape {tuple(values.shape)}", axis)
        return number % values.ndim
    if values.ndim != 3 or name.endswith("embeds"):
        return 1
    if values.is_floating_point():
        return None
    raise InputError(
        f"axis must name the dimension of positions of {name}, integers of shape {tuple(values.shape)}, got None. Give "
        "axis=1 for (sequences, positions, codes) or axis=2 for (sequences, codes, positions)."
    )


def _check_ids(name: str, ids: Tensor, embedding: object) -> None:
    """Refuse what are no ids of an embedding's tokens."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise InputError(f"{name} must be integers of dtype torch.int64, got dtype {ids.dtype}. Give ids.long().")
    size = getattr(embedding, "num_embeddings", None)
    if isinstance(size, int) and not bool(((ids >= 0) & (ids < size)).all()):
        wrong = ids[(ids < 0) | (ids >= size)][0].item()
        raise InputError(
            f"{name} must be from 0 to {size - 1}, the tokens that the model knows, got {wrong}. Make the ids with its "
            "own tokenizer."
        )
