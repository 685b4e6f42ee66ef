"""Models of transformers from a folder or the hub: configuration, tokenizer and weights, and which are refused."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from statesize import zoo
from statesize.errors import FileError, InputError, ModelError, StatesizeError
from statesize.loading.libraries import MAMBA_SSM_NAMES, read_config
from statesize.texts.tokens import AnyTokenizer
from statesize.untrusted import check_header

WITHOUT_TOKENIZER = "Put the model's tokenizer there, or give token ids to `statesize profile` by --ids FILE."
"""What to do about a tokenizer that is not there."""
MOST_LAYERS = 10_000
"""Layers of a model of transformers; of its own checkpoints statesize compares them with the weights that are there."""


@contextmanager
def hushed() -> Generator[None]:
    """Keeps back bars and warnings of transformers and the hub while files are read or written."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers import logging

    verbosity, bars, hub = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # It tells of every try to reach the hub; that it could not be reached is in the error.
    hub_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub)
        if bars:
            logging.enable_progress_bar()


def _transformers(name: str) -> Any:
    if Path(name).is_file():
        raise InputError(f"The model must be a folder with its config.json, got {name}, which is a file.")
    try:
        import transformers
    except ImportError as error:
        raise FileError(
            f"There is no model {name!r} among the bundled ones ({', '.join(zoo.names())}), and models of the hub need "
            "the package transformers: pip install transformers."
        ) from error
    return transformers


def read_transformers_config(name: str, options: dict[str, Any]) -> Any:
    """The configuration of a model of transformers that can be measured."""
    library = _transformers(name)
    try:
        with hushed():
            config = read_config(library, name, options)
        _check_config(name, config, options)
        _check_causal(name, config, library)
    except StatesizeError:
        raise
    except Exception as error:  # as below
        raise _refusal_of(name, error, options, allow_pickle=True) from error
    return config


def transformers_tokenizer(name: str, options: dict[str, Any]) -> AnyTokenizer:
    """The tokenizer of a model that can be measured."""
    read_transformers_config(name, options)
    library = _transformers(name)
    try:
        with hushed():
            tokenizer = library.AutoTokenizer.from_pretrained(name, **options)
        # transformers makes an empty one of a configuration alone, of which any text is no tokens.
        if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():
            raise ValueError("its vocabulary is empty: are its files there?")
        return tokenizer
    except Exception as error:  # as below
        refusal = _refusal_of(name, error, options, allow_pickle=True)
        if "--trust-remote-code" in str(refusal):
            raise refusal from error
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"The tokenizer of {name} cannot be loaded ({reason}). {WITHOUT_TOKENIZER}") from error


def transformers_model(
    name: str, dtype: torch.dtype | None, options: dict[str, Any], *, allow_pickle: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model, and where it is from: kind, and for an id of the hub revision and commit."""
    config, library = read_transformers_config(name, options), _transformers(name)
    for weights in Path(name).glob("*.safetensors"):
        check_header(weights)
    try:
        with hushed():
            model = library.AutoModelForCausalLM.from_pretrained(
                name,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=None if allow_pickle else True,
                weights_only=True,
                key_mapping=MAMBA_SSM_NAMES if config.model_type in ("mamba", "mamba2") else None,
                **options,
            )
    except Exception as error:  # the hub, safetensors, pickle and the models' own code have no error in common
        raise _refusal_of(name, error, options, allow_pickle=allow_pickle) from error
    _own_memory(model)
    if Path(name).is_dir():
        return model, {"kind": "folder"}
    revision = str(options["revision"] or "main")
    return model, {"kind": "hub", "revision": revision, "commit": commit(name, revision)}


def commit(name: str, revision: str) -> str:
    """The commit of a model that was just loaded from the hub, which configurations do not tell in every version."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else "unknown"


def _own_memory(model: nn.Module) -> None:
    """Copies weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _check_config(name: str, config: Any, options: dict[str, Any]) -> None:
    """Refuse a configuration that names code to fetch and run, or a number of layers that no model has."""
    for key in ("_attn_implementation_internal", "_attn_implementation", "_experts_implementation_internal"):
        named = getattr(config, key, None)
        if not options["trust_remote_code"] and isinstance(named, str) and "/" in named:
            raise FileError(
                f"{name} brings code of its own, the kernel {named!r} of the hub, which is not run; take it out of its "
                "config.json, or if you have read it, give --trust-remote-code."
            )
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise FileError(f"{name} says that it has {layers:,} layers; at most {MOST_LAYERS:,} are read.")


def _check_causal(name: str, config: Any, library: Any) -> None:
    """Refuse a model that is no causal language model, or has quantised weights."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder model; statesize measures causal language models, as GPT-2 is.")
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{name} has quantised weights. Give the checkpoint that it was made from.")
    architectures = cast("list[str]", getattr(config, "architectures", None) or [])
    masked = any(architecture.endswith(("ForMaskedLM", "ForPreTraining")) for architecture in architectures)
    known = type(config) in library.AutoModelForCausalLM._model_mapping or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    )
    if not known or (masked and not getattr(config, "is_decoder", False)):
        raise ModelError(
            f"{name} is no causal language model ({', '.join(architectures) or config.model_type}): each of its "
            "positions sees the later ones, or transformers has no language model of it. Give a decoder, as GPT-2 is."
        )


def _refusal_of(name: str, error: Exception, options: dict[str, Any], *, allow_pickle: bool) -> FileError | InputError:
    """An error of transformers as one of statesize."""
    reason = " ".join(str(error).split())
    if not allow_pickle and "safetensors" in reason:
        return FileError(
            f"{name} has no weights in safetensors; if you trust where it comes from, --allow-pickle reads the others, "
            "with weights_only=True."
        )
    if not options["trust_remote_code"] and "trust_remote_code" in reason:
        return FileError(
            f"{name} brings Python code of its own, which is not run; if you have read it, give --trust-remote-code."
        )
    if Path(name).is_dir():
        return FileError(f"{name} cannot be loaded: {reason[:300]}")
    first = reason.partition(". ")[0][:200]
    return InputError(
        f"there is no model {name!r} that can be loaded: it is neither a bundled name ({', '.join(zoo.names())}) nor a "
        f"folder, and the Hugging Face hub gives none (offline, misspelt, or it needs a login): {first}"
    )
