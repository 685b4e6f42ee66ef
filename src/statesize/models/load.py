"""From a name to a model and its tokenizer: bundled, a folder, a GGUF file, or a model of the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from statesize.adapters.forward import Inputs
from statesize.adapters.models.model_state import adapter_states, tensors_sha256, unwrapped
from statesize.adapters.models.precision import hold_in_single, in_dtype, low_bytes, stored_dtype
from statesize.adapters.models.quantised import measurable
from statesize.check import require_choice, require_kind
from statesize.errors import FileError, InputError
from statesize.io.devices import on_cpu_by_default
from statesize.io.machine import free_bytes
from statesize.models.class_sources import class_sources
from statesize.models.from_transformers import WITHOUT_TOKENIZER, Checkpoint
from statesize.models.plugins import ModelPlugin, refuse_name
from statesize.texts.inputs import sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer
from statesize.version import __version__


def model_facts(model: nn.Module, unknown: str = "") -> dict[str, object]:
    """Facts for JSON on which the numbers of a model over some tokens depend, by name, without hooks and attributes."""
    # `unknown` stands for the source of a class that has none; left out, it is another one in each call.
    config: Any = getattr(model, "config", None)
    described: Any = repr(config)
    if hasattr(config, "to_dict"):
        # Where a model was loaded from is no part of what it computes.
        described = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    adapters = adapter_states(model)
    return {
        "weights": tensors_sha256(model.state_dict()),
        **({"adapters": adapters} if adapters else {}),
        # The state_dict leaves some of them out.
        "buffers": {name: tensors_sha256({"buffer": part}) for name, part in model.named_buffers() if part.numel()},
        "structure": repr(model),
        "sources": {name: source or unknown or uuid4().hex for name, source in class_sources(model).items()},
        "config": described,
        "attention": getattr(config, "_attn_implementation", None),
        "device": str(next((parameter.device for parameter in model.parameters()), "cpu")),
        # Threads share the heads out among them, which shows in the last bits.
        "threads": torch.get_num_threads(),
        "versions": [__version__, str(torch.__version__), np.__version__],
    }


DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtypes of weights, by name."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to be profiled.

    Attributes:
        name: The name of its folder or file, or of the hub.
        model: In evaluation mode, on its device.
        tokenizer: None where none is beside it.
        source: Kind ("bundled", "folder", "gguf" or "hub"), for a hub id its revision and commit, how weights were
            stored that are dequantised, and which weights of the checkpoint went unused.
    """

    name: str
    model: nn.Module
    tokenizer: AnyTokenizer | None
    source: dict[str, str]


class ModelAndTokenizer(NamedTuple):
    """A model in evaluation mode, and its tokenizer or None."""

    model: nn.Module
    tokenizer: AnyTokenizer | None

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        beside = "no tokenizer" if self.tokenizer is None else "its tokenizer"
        return f"{type(self.model).__name__}, {parameters:,} parameters, and {beside}"


def load(name: str | PathLike[str]) -> ModelAndTokenizer:
    """Load a model and its tokenizer: bundled, a folder of statesize or transformers, a GGUF file, or an id of the hub.

    Args:
        name: Such as "gla", "run/best", "SmolLM2-135M-Instruct.Q4_1.gguf", or "state-spaces/mamba-130m-hf".

    Returns:
        The model on the CPU in evaluation mode, and its tokenizer; None where none is beside it. Weights that are
        quantised in their file are dequantised.

    Raises:
        FileError: There is no such model, it or its tokenizer cannot be read, or some of its weights are missing.
        ModelError: It is no causal language model.

    Example:
        >>> model, tokenizer = load("gpt2")  # doctest: +SKIP
    """
    require_kind("name", name, (str, PathLike), "a name or a folder")
    loaded = load_model(str(name), needs_tokenizer=False, as_stored=True)
    return ModelAndTokenizer(loaded.model, loaded.tokenizer)


@on_cpu_by_default
def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    needs_tokenizer: bool = True,
    as_stored: bool = False,
) -> LoadedModel:
    """Load a bundled model, a folder (of `statesize lab train` or transformers), a GGUF file or an id of the hub."""
    # Without a dtype, weights of half precision run in float32 where that fits, unless they are wanted as stored.
    target = _device(device)
    if dtype is not None:
        require_choice("dtype", dtype, DTYPES)
    wanted, plugin, is_here = DTYPES.get(dtype or ""), refuse_name(name), Path(name).exists()
    if revision is not None and (plugin or is_here):
        raise InputError(f"revision must be left out for a model that is not of the hub, got {revision!r} for {name}.")
    if plugin is not None:
        model, source = plugin.model(name), {"kind": "folder" if Path(name).is_dir() else "bundled"}
        tokenizer = _plugins_tokenizer(name, plugin, needs_tokenizer)
    else:
        checkpoint = Checkpoint(name, revision, trust_remote_code, allow_pickle)
        model, source, tokenizer = checkpoint.loaded(wanted, needs_tokenizer=needs_tokenizer)
    model = (model if wanted is None else in_dtype(model, wanted)).to(target).eval()
    if dtype is None and not as_stored and low_bytes(model):
        stored = [source["weights"]] if "weights" in source else []
        source = source | {"weights": "; ".join([*stored, _run_in_single(model, target)])}
    return LoadedModel(Path(name).absolute().name if is_here else name, model, tokenizer, source)


def _run_in_single(model: nn.Module, device: torch.device) -> str:
    """Hold weights of half precision in float32 if they fit, and say so."""
    stored = str(stored_dtype(model)).removeprefix("torch.")
    free = free_bytes(device)
    # While they are copied, both lie in memory; as much again is for the forward pass.
    if free is not None and free < 4 * low_bytes(model):
        return f"{stored}, in which the model runs, as float32 does not fit; ESS of single heads may be off by 10 %"
    hold_in_single(model)
    return f"{stored}, run in float32"


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device must be one that can be used here, got {name!r}: {reason}") from error


def _plugins_tokenizer(name: str, plugin: ModelPlugin, needed: bool) -> AnyTokenizer | None:
    tokenizer = plugin.tokenizer(name)
    if tokenizer is None and needed:
        raise FileError(f"{name} must have a tokenizer, got none. {WITHOUT_TOKENIZER}")
    return tokenizer


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, needs_tokenizer: bool = True
) -> tuple[Any, Any]:
    """The tokenizer and configuration of a model whose weights other processes read; errors are as of `load_model`."""
    if (plugin := refuse_name(name)) is not None:
        return _plugins_tokenizer(name, plugin, needs_tokenizer), getattr(plugin.model(name), "config", None)
    return Checkpoint(name, revision, trust_remote_code).tokenizer_and_config(needs_tokenizer=needs_tokenizer)


def given_model(
    model: nn.Module | str, tokenizer: object = None, name: str | None = None, *, needs_tokenizer: bool = False
) -> LoadedModel:
    """A model, loaded where it is named, with a tokenizer and a name: the caller's, or its own; "" without either."""
    tokenizer = supported_tokenizer(tokenizer)
    if not isinstance(model, str):
        unwrapped(model)
        return LoadedModel(name or "", model, tokenizer, {})
    loaded = load_model(model, needs_tokenizer=tokenizer is None and needs_tokenizer)
    return replace(loaded, name=name or loaded.name, tokenizer=tokenizer or loaded.tokenizer)


def given_sequence(model: nn.Module | str, input_ids: Inputs | str | Path) -> tuple[nn.Module, Inputs]:
    """A model, loaded where it is named, and its input, of which a text becomes ids."""
    loaded = given_model(model)
    if not isinstance(input_ids, str | Path):
        return loaded.model, input_ids
    texts = list(sequences(input_ids, loaded.tokenizer))
    if len(texts) != 1:
        raise InputError(f"input_ids must hold one sequence, got {len(texts)}. Give one at a time.")
    return loaded.model, texts[0][None]


def measured_model(
    model: nn.Module | str, tokenizer: object, name: str | None, *, needs_tokenizer: bool
) -> tuple[nn.Module, AnyTokenizer | None, str]:
    """A model that is cut, as it is measured, with its tokenizer and a name: the caller's, or its own."""
    given = given_model(model, tokenizer, name, needs_tokenizer=needs_tokenizer)
    measured = measurable(given.model)
    return measured, given.tokenizer, given.name or type(measured).__name__
