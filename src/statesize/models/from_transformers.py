"""Models of transformers from a folder, a GGUF file or the hub: weights, all of them, and tokenizer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.adapters.models.quantised import float_model, quantisation
from statesize.errors import FileError, StatesizeError
from statesize.io.callers import warn_caller
from statesize.io.files import is_gguf
from statesize.models.configurations import checked_config
from statesize.models.files import check_loaded, check_stored, has_tokenizer
from statesize.models.gguf import check_tensors, require_readable, set_splitter, stored_weights
from statesize.models.gguf_config import ROPE_FACTORS, gguf_config
from statesize.models.hub import ask_hub, commit, not_given, snapshot
from statesize.texts.tokens import AnyTokenizer

WITHOUT_TOKENIZER = "Put the model's tokenizer there, or give token ids to `statesize profile` by --text FILE.json."
"""What to do about a tokenizer that is not there."""
# Parts of the names of weights where the model was saved inside what held it: torch.compile, or DataParallel.
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


@contextmanager
def _refusing(name: str, options: dict[str, Any], *, allow_pickle: bool = True) -> Generator[None]:
    """Turn what transformers, the hub, safetensors and a model's own code raise, quietly, into a FileError."""
    try:
        with hushed():
            yield
    except StatesizeError:
        raise
    except Exception as error:  # they have no error in common
        raise _refusal_of(name, error, options, allow_pickle=allow_pickle) from error


def _refusal_of(name: str, error: BaseException, options: dict[str, Any], *, allow_pickle: bool) -> FileError:
    reason = " ".join(str(error).split())
    if not allow_pickle and "safetensors" in reason:
        return FileError(
            f"{name} must have weights in safetensors, got none. If you trust where it comes from, --allow-pickle "
            "reads the others, without running code in them."
        )
    if not options["trust_remote_code"] and "trust_remote_code" in reason:
        return FileError(
            f"{name} must be a model of transformers, got Python code of its own, which is not run. If you have read "
            "it, give --trust-remote-code."
        )
    if "weights_only" in reason:
        # torch proposes to run what the file holds.
        reason = "its weights are pickled with more than tensors, which is not read"
    if Path(name).exists():
        return FileError(f"{name} cannot be loaded: {reason[:300].rstrip('.')}. If its files are damaged, copy them.")
    return not_given(name, error)


def _transformers() -> Any:
    # An import statement would let a type checker read all of its models, which takes longer than all else.
    return import_module("transformers")


def _source_of(name: str) -> tuple[str, dict[str, str]]:
    """The model for `from_pretrained`: a folder or an id of the hub, and the name of a GGUF file in it."""
    path = Path(name)
    if not is_gguf(path):
        return name, {}
    require_readable(path)
    return str(path.absolute().parent), {"gguf_file": path.name}


def transformers_config(name: str, options: dict[str, Any]) -> Any:
    """The configuration of a model of transformers that can be measured."""
    ask_hub(name, options["revision"])
    library, (source, file) = _transformers(), _source_of(name)
    with _refusing(name, options):
        config = checked_config(library, name, source, options | file)
        return gguf_config(library, Path(name), config) if file else config


def transformers_tokenizer(name: str, options: dict[str, Any]) -> AnyTokenizer:
    """The tokenizer of a model whose configuration was read."""
    library, (source, file) = _transformers(), _source_of(name)
    try:
        with _refusing(name, options):
            tokenizer = library.AutoTokenizer.from_pretrained(source, **options, **file)
            # transformers makes an empty one of a configuration alone, of which any text is no tokens.
            if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():
                raise ValueError("its vocabulary is empty: are its files there?")
            if file:
                set_splitter(tokenizer, Path(name))
            return tokenizer
    except FileError as error:
        if file or "--trust-remote-code" in str(error):
            raise
        damaged = has_tokenizer(Path(name))
        advice = (
            "Copy its files, or remove them and give token ids (--text FILE.json)." if damaged else WITHOUT_TOKENIZER
        )
        raise FileError(f"The tokenizer of {name} must be readable, got: {error} {advice}") from error


def transformers_model(
    name: str, config: Any, dtype: torch.dtype | None, options: dict[str, Any], *, allow_pickle: bool
) -> tuple[nn.Module, dict[str, str]]:
    """A model with all its weights, and its source: kind, and what else a profile keeps of it."""
    library, (source, file) = _transformers(), _source_of(name)
    method, path = quantisation(config).get("quant_method"), Path(name)

    def read(kind: Any = library.AutoModelForCausalLM, names: dict[str, str] | None = None) -> tuple[nn.Module, Any]:
        with _refusing(name, options, allow_pickle=allow_pickle):
            return kind.from_pretrained(
                source,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=None if allow_pickle or file else True,
                weights_only=True,
                key_mapping=names,
                # What is missing or misshapen is refused below, by name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
                **file,
            )

    model, loaded = read()
    held = [match[0] for key in sorted(loaded["unexpected_keys"]) if (match := re.search(_HELD, key))]
    if held and loaded["missing_keys"]:
        model, loaded = read(names={_HELD: ""})
        warn_caller(f"{name}: {held[0]!r} was left out of the names of its weights.")
    base = library.MODEL_MAPPING.get(type(config), None)
    if loaded["missing_keys"] and base is not None and config.architectures == [base.__name__]:
        # Saved without a head, which no layer needs to be measured.
        model, loaded = read(library.AutoModel)
    unused = check_loaded(name, model, loaded)
    if file:
        check_tensors(path, model, loaded["unexpected_keys"], ROPE_FACTORS.get(config.model_type, ()))
    folder = path if path.is_dir() else None if file else snapshot(name, options["revision"] or "main")
    if folder and not method:
        check_stored(name, folder, model, loaded["unexpected_keys"])
    model, stored = float_model(model)
    for tensor in (*model.parameters(), *model.buffers()):
        # Weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS.
        tensor.data = tensor.data.clone()
    # Transformers leaves no trace of what it has dequantised itself.
    weights = stored_weights(path) if file else stored or (f"{method}, dequantised" if method else "")
    facts = {key: value for key, value in {"weights": weights, "unused_weights": unused}.items() if value}
    if file or path.is_dir():
        return model, {"kind": "gguf" if file else "folder"} | facts
    revision = str(options["revision"] or "main")
    return model, {"kind": "hub", "revision": revision, "commit": commit(name, revision)} | facts
