"""From a name to a model and its tokenizer: bundled, a folder, a GGUF file, or a model of the hub."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast
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
from statesize.io.files import is_gguf
from statesize.io.machine import free_bytes
from statesize.models.class_sources import class_sources
from statesize.models.files import check_digest, has_tokenizer, parsed_once
from statesize.models.from_transformers import (
    WITHOUT_TOKENIZER,
    read_transformers_config,
    transformers_model,
    transformers_tokenizer,
)
from statesize.models.hub import snapshot
from statesize.models.plugins import ModelPlugin, plugin_of, refuse_misspelt, refuse_profile
from statesize.texts.documents import configured_context, configured_vocabulary, vocabulary_size
from statesize.texts.inputs import sequences
from statesize.texts.tokens import AnyTokenizer, supported_tokenizer
from statesize.version import __version__


def training_record(name: str) -> dict[str, Any]:
    """How a model of a plug-in was trained; empty for others, and where nothing is said."""
    plugin = plugin_of(name)
    return plugin.record(name) if plugin else {}


def model_facts(model: nn.Module, unknown: str = "") -> dict[str, object]:
    """What the numbers of a model over some tokens depend on, without hooks and attributes; "weights" is a SHA-256."""
    # `unknown` stands for the source of a class that has none; left out, it is another one in each call.
    config = getattr(model, "config", None)
    described = cast("Any", config).to_dict() if hasattr(config, "to_dict") else repr(config)
    if isinstance(described, dict):
        # Where a model was loaded from is no part of what it computes.
        described = {key: value for key, value in cast("dict[str, Any]", described).items() if key != "_name_or_path"}
    # The state_dict leaves some of them out.
    buffers = {name: tensors_sha256({"buffer": buffer}) for name, buffer in model.named_buffers() if buffer.numel()}
    adapters = adapter_states(model)
    return {
        "weights": tensors_sha256(model.state_dict()),
        **({"adapters": adapters} if adapters else {}),
        "buffers": buffers,
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


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to be profiled."""

    name: str
    model: nn.Module  # in evaluation mode, on its device
    tokenizer: AnyTokenizer | None
    # Kind ("bundled", "folder", "gguf" or "hub"), for a hub id its revision and commit, how weights were stored that
    # are dequantised, and which weights of the checkpoint went unused.
    source: dict[str, str]


class ModelAndTokenizer(NamedTuple):
    """What `load` returns: a model in evaluation mode, and its tokenizer or None."""

    model: nn.Module
    tokenizer: AnyTokenizer | None

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        beside = "no tokenizer" if self.tokenizer is None else "its tokenizer"
        return (
            f"{type(self.model).__name__}, {parameters:,} parameters, and {beside}\n"
            "next: model, tokenizer = these; statesize.profile(model, TEXT, tokenizer=tokenizer)"
        )


def load(name: str | PathLike[str]) -> ModelAndTokenizer:
    """A model and its tokenizer: bundled, a folder of statesize or transformers, a GGUF file, or an id of the hub.

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
    """Load a bundled model, a folder (of `statesize train` or transformers), a GGUF file or an id of the hub."""
    # A model that is not there or cannot be read is a FileError, one that is no causal language model a ModelError.
    # Without a dtype, weights of half precision run in float32 where that fits, unless they are wanted as stored.
    target = _device(device)
    if dtype is not None:
        require_choice("dtype", dtype, DTYPES)
    plugin = _plugin_or_none(name)
    if revision is not None and (plugin or Path(name).exists()):
        raise InputError(f"revision must be left out for a model that is not of the hub, got {revision!r} for {name}.")
    if plugin is not None:
        model, tokenizer = plugin.model(name), _tokenizer_or_none(name, {}, needs_tokenizer)
        source = {"kind": "folder" if Path(name).is_dir() else "bundled"}
    else:
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        with parsed_once() if is_gguf(Path(name)) else nullcontext():
            model, source = transformers_model(name, DTYPES.get(dtype or ""), options, allow_pickle=allow_pickle)
            tokenizer = _tokenizer_or_none(name, options, needs_tokenizer)
    model = (model if dtype is None else in_dtype(model, DTYPES[dtype])).to(target).eval()
    if dtype is None and not as_stored and low_bytes(model):
        stored = [source["weights"]] if "weights" in source else []
        source = source | {"weights": "; ".join([*stored, _run_in_single(model, target)])}
    return LoadedModel(model_name(name), model, tokenizer, source)


def _run_in_single(model: nn.Module, device: torch.device) -> str:
    """Hold weights of half precision in float32 if they fit; what is said of them."""
    stored = str(stored_dtype(model)).removeprefix("torch.")
    free = free_bytes(device)
    # While they are copied, both lie in memory; as much again is for the forward pass.
    if free is not None and free < 4 * low_bytes(model):
        return f"{stored}, in which the model runs, as float32 does not fit; ESS of single heads may be off by 10 %"
    hold_in_single(model)
    return f"{stored}, run in float32"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device must be one that can be used here, got {name!r}: {reason}") from error
    return device


def _plugin_or_none(name: str) -> ModelPlugin | None:
    """The plug-in that knows a model, or None for one of transformers, whose name or folder is looked at first."""
    if is_gguf(Path(name)):
        return None
    if (Path(name) / "adapter_config.json").is_file():
        raise FileError(
            f"{name} holds an adapter of peft and not the model that it was made for. Load both with "
            "peft.PeftModel.from_pretrained(model, folder) and give the model, or merge them and give that folder."
        )
    refuse_profile(name)
    plugin = plugin_of(name)
    if plugin is None and not Path(name).is_dir():
        refuse_misspelt(name)
    return plugin


def _tokenizer_or_none(name: str, options: dict[str, Any], needed: bool) -> AnyTokenizer | None:
    """The tokenizer of a model; None where there is none and none is needed. One that is there must be readable."""
    try:
        return load_tokenizer(name, **options)
    except FileError:
        if needed or Path(name).is_file() or _has_tokenizer(name, options):
            raise
        return None


def _has_tokenizer(name: str, options: dict[str, Any]) -> bool:
    """Whether a model has a tokenizer, readable or not; that of a plug-in must be."""
    plugin = plugin_of(name)
    if plugin is not None:
        return plugin.tokenizer(name) is not None
    return has_tokenizer((None if Path(name).is_dir() else snapshot(name, options["revision"] or "main")) or Path(name))


def given_model(
    model: nn.Module | str,
    tokenizer: object = None,
    name: str | None = None,
    *,
    needs_tokenizer: bool = False,
) -> LoadedModel:
    """A model, loaded where it is named, with a tokenizer and a name: the caller's, or its own; "" without either."""
    tokenizer = supported_tokenizer(tokenizer)
    if not isinstance(model, str):
        unwrapped(model)
        return LoadedModel(name or "", model, tokenizer, {})
    loaded = load_model(model, needs_tokenizer=tokenizer is None and needs_tokenizer)
    return replace(loaded, name=name or loaded.name, tokenizer=tokenizer or loaded.tokenizer)


def given_sequence(model: nn.Module | str, input_ids: Inputs | str | Path) -> tuple[nn.Module, Inputs]:
    """A model, loaded where it is named, and what it reads, of which a text becomes ids."""
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


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> AnyTokenizer:
    """The tokenizer of a model that is loaded elsewhere; everything that needs no weights is checked."""
    # Errors are those of `load_model`.
    plugin = _plugin_or_none(name)
    if plugin is not None:
        tokenizer = plugin.tokenizer(name)
        if tokenizer is None:
            raise FileError(f"{name} has no tokenizer. {WITHOUT_TOKENIZER}")
        return tokenizer
    check_digest(Path(name))
    return transformers_tokenizer(name, {"revision": revision, "trust_remote_code": trust_remote_code})


def model_name(name: str) -> str:
    """What a model of a name or path is called where it is loaded."""
    return Path(name).absolute().name if Path(name).exists() else name


class ModelFacts(NamedTuple):
    """What texts need of a model whose weights other processes read."""

    tokenizer: AnyTokenizer | None  # none where there is none and none is needed
    vocabulary: int | None  # how many tokens it knows; None where its configuration does not say
    context: int | None  # tokens of the longest context that its configuration names; None where it names none


def load_model_facts(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, needs_tokenizer: bool = True
) -> ModelFacts:
    """What is known of a model that is loaded elsewhere; errors are those of `load_model`."""
    options, plugin = {"revision": revision, "trust_remote_code": trust_remote_code}, _plugin_or_none(name)
    with parsed_once() if is_gguf(Path(name)) else nullcontext():
        tokenizer = _tokenizer_or_none(name, options, needs_tokenizer)
        if plugin is not None:
            model = plugin.model(name)
            config: Any = getattr(model, "config", None)
            return ModelFacts(tokenizer, vocabulary_size(model), configured_context(config))
        config = read_transformers_config(name, options)
    return ModelFacts(tokenizer, configured_vocabulary(config), configured_context(config))
