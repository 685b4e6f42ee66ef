"""Models of transformers from a folder, a GGUF file or the hub: weights, all of them, and tokenizer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.adapters.models.quantised import float_model, quantisation
from statesize.errors import FileError, StatesizeError
from statesize.io.callers import warn_caller
from statesize.io.files import is_gguf
from statesize.models.configurations import MAMBA_SSM_NAMES, checked_config
from statesize.models.files import (
    check_files,
    check_loaded,
    check_stored,
    has_tokenizer,
    require_readable,
    stored_weights,
    without_bar,
)
from statesize.models.gguf_config import check_tensors, gguf_config
from statesize.models.hub import ask_hub, commit, not_given, snapshot
from statesize.models.splitters import doubt_of_splitter, set_splitter
from statesize.texts.tokens import AnyTokenizer

WITHOUT_TOKENIZER = "Put the model's tokenizer there, or give token ids to `statesize profile` by --text FILE.json."
"""What to do about a tokenizer that is not there."""
# What names of weights have where the model was saved inside what held it: torch.compile, or DataParallel.
_HELD = r"^(?:_orig_mod\.|module\.)+|(?<=\.)(?:_orig_mod|_checkpoint_wrapped_module)\."


@contextmanager
def hushed() -> Generator[None]:
    """Hide bars and warnings of transformers and the hub; their facts about weights are read and reported elsewhere."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, bars, hub = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # It logs every attempt to reach the hub; a failure is in the error.
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


def _transformers() -> Any:
    # An import statement would let a type checker read all of its models, which takes longer than all else.
    return import_module("transformers")


def _source_of(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a model: a folder or an id of the hub, and the name of a GGUF file in it."""
    path = Path(name)
    if not is_gguf(path):
        return name, {}
    require_readable(path)
    return str(path.absolute().parent), {"gguf_file": path.name}


def read_transformers_config(name: str, options: dict[str, Any]) -> Any:
    """The configuration of a model of transformers that can be measured."""
    library = _transformers()
    ask_hub(name, options["revision"])
    try:
        source, file = _source_of(name)
        with hushed():
            config = checked_config(library, name, source, options | file)
            return gguf_config(library, Path(name), config) if file else config
    except StatesizeError:
        raise
    except Exception as error:  # as below
        raise _refusal_of(name, error, options, allow_pickle=True) from error


def transformers_tokenizer(name: str, options: dict[str, Any]) -> AnyTokenizer:
    """The tokenizer of a model that can be measured."""
    read_transformers_config(name, options)
    library, (source, file) = _transformers(), _source_of(name)
    try:
        with hushed():
            tokenizer = library.AutoTokenizer.from_pretrained(source, **options, **file)
        # transformers makes an empty one of a configuration alone, of which any text is no tokens.
        if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():
            raise ValueError("its vocabulary is empty: are its files there?")
        if file:
            set_splitter(tokenizer, Path(name))
        return tokenizer
    except Exception as error:  # as below
        refusal = _refusal_of(name, error, options, allow_pickle=True)
        if "--trust-remote-code" in str(refusal):
            raise refusal from error
        reason = " ".join(str(error).split())[:200]
        damaged = has_tokenizer(Path(name))
        advice = (
            "Copy its files again, or remove them and give ids (--text FILE.json)." if damaged else WITHOUT_TOKENIZER
        )
        raise FileError(f"The tokenizer of {name} cannot be loaded ({reason}). {advice}") from error


def transformers_model(
    name: str, dtype: torch.dtype | None, options: dict[str, Any], *, allow_pickle: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model with all its weights, and where it is from: kind, and what else a profile keeps of it."""
    config, library = read_transformers_config(name, options), _transformers()
    source, file = _source_of(name)
    if not file:
        check_files(Path(name))
    method = quantisation(config).get("quant_method")
    names = MAMBA_SSM_NAMES if config.model_type in ("mamba", "mamba2") else {}

    def read(names: dict[str, str], kind: Any = library.AutoModelForCausalLM) -> tuple[nn.Module, dict[str, Any]]:
        with hushed(), without_bar() if file else nullcontext():
            return kind.from_pretrained(
                source,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=None if allow_pickle or file else True,
                weights_only=True,
                key_mapping=names or None,
                # What is missing or misshapen is refused below, by name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
                **file,
            )

    try:
        model, loaded = read(names)
        held = [match[0] for key in sorted(loaded["unexpected_keys"]) if (match := re.search(_HELD, key))]
        if held and loaded["missing_keys"]:
            model, loaded = read({_HELD: ""} | names)
            warn_caller(f"{name}: {held[0]!r} was left out of the names of its weights.")
        base = library.MODEL_MAPPING.get(type(config), None)
        if loaded["missing_keys"] and base is not None and config.architectures == [base.__name__]:
            # Saved without a head, which no layer needs to be measured.
            model, loaded = read(names, library.AutoModel)
    except Exception as error:  # the hub, safetensors, pickle and the models' own code have no error in common
        raise _refusal_of(name, error, options, allow_pickle=allow_pickle) from error
    unused = check_loaded(name, model, loaded)
    if file:
        check_tensors(Path(name), model, loaded["unexpected_keys"])
    elif not method and (
        folder := Path(name) if Path(name).is_dir() else snapshot(name, options["revision"] or "main")
    ):
        check_stored(name, folder, model, loaded["unexpected_keys"])
    model, stored = float_model(model)
    # Transformers leaves no trace of what it has dequantised itself.
    stored = stored or (f"{method}, dequantised" if method else "")
    for tensor in (*model.parameters(), *model.buffers()):
        # Weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS.
        tensor.data = tensor.data.clone()
    source_facts = {"weights": stored_weights(Path(name)) if file else stored, "unused_weights": unused}
    facts = {key: value for key, value in source_facts.items() if value}
    if file:
        if doubt := doubt_of_splitter(Path(name)):
            warn_caller(f"{name}: {doubt}.")
            facts["tokenizer"] = doubt
        return model, {"kind": "gguf"} | facts
    if Path(name).is_dir():
        return model, {"kind": "folder"} | facts
    revision = str(options["revision"] or "main")
    return model, {"kind": "hub", "revision": revision, "commit": commit(name, revision)} | facts


def _refusal_of(name: str, error: BaseException, options: dict[str, Any], *, allow_pickle: bool) -> FileError:
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
    if Path(name).exists():
        why = reason[:300].rstrip(".")
        return FileError(f"{name} cannot be loaded: {why}. If its files are damaged, copy them again.")
    return not_given(name, error)
