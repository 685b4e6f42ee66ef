"""A student: a teacher with less state, or with states instead of a cache, and all else as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from statesize.check import refuse, require_kind
from statesize.lab.mixers.mixer import HeadMixer, Mixer
from statesize.lab.mixers.model import LanguageModel


def student_of(
    teacher: LanguageModel,
    key_sizes: int | Sequence[int],
    generator: torch.Generator | None = None,
    mixer: str | None = None,
) -> LanguageModel:
    """A model with the teacher's weights wherever these do not depend on the size of the state.

    Embedding, norms, MLPs, values and output projections are the teacher's; queries, keys and gates start anew.

    Args:
        teacher: Is not changed.
        key_sizes: n of all layers, or one for each.
        generator: Source of what starts anew; None draws from torch's default generator.
        mixer: That of the student, such as "la" for a teacher of softmax attention; None takes the teacher's.

    Returns:
        A model on the teacher's device, in its dtype. Where layers differ in size, its `config` names that of the first
        only: keep the sizes with its `state_dict`, as `save_checkpoint` does not.

    Raises:
        InputError: The number of sizes is not that of the layers, a size does not fit the mixer, or there is no such
            mixer.

    Example:
        >>> from statesize.lab.mixers import ModelConfig
        >>> teacher = LanguageModel(ModelConfig(width=8, heads=2, layers=2, key_size=16))
        >>> student = student_of(teacher, [2, 4])
        >>> [block.mixer.key_size for block in student.blocks]
        [2, 4]
    """
    require_kind("teacher", teacher, LanguageModel, "a LanguageModel")
    require_kind("generator", generator, (torch.Generator, type(None)), "a torch.Generator or None")
    require_kind("mixer", mixer, (str, type(None)), "the name of a mixer, or None")
    config = teacher.config if mixer is None else dataclasses.replace(teacher.config, mixer=mixer)
    require_kind("key_sizes", key_sizes, (int, list, tuple), "an integer, or a list of one for each layer")
    sizes = [key_sizes] * config.layers if isinstance(key_sizes, int) else list(key_sizes)
    if len(sizes) != config.layers:
        refuse("key_sizes", f"one for each of {config.layers} layers", sizes)
    with torch.no_grad():
        built = {
            size: LanguageModel(dataclasses.replace(config, key_size=size), generator) for size in dict.fromkeys(sizes)
        }
        student = built[sizes[0]]
        for layer, size in enumerate(sizes):
            student.blocks[layer].mixer = built[size].blocks[layer].mixer
        weights = teacher.state_dict()
        for name, tensor in student.state_dict().items():
            if name in weights and tensor.shape == weights[name].shape:
                tensor.copy_(weights[name])
        for theirs, ours in zip(teacher.blocks, student.blocks, strict=True):
            _copy_values(theirs.mixer, ours.mixer)
    weight = next(teacher.parameters())
    return student.to(weight.device, weight.dtype)


def _copy_values(teacher: Mixer, student: Mixer) -> None:
    """The value channels, which come last in the projection and in its convolution; they have no state of their own."""
    if not isinstance(teacher, HeadMixer) or not isinstance(student, HeadMixer):
        return
    width = teacher.expansion * teacher.config.width
    for theirs, ours in ((teacher.projection, student.projection), (teacher.convolution, student.convolution)):
        if theirs is not None and ours is not None:
            ours.weight[-width:].copy_(theirs.weight[-width:])
