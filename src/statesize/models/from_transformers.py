"""Models of transformers from a folder, a GGUF file or the hub: weights, all of them, and tokenizer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statesize.adapters.models.quantised import float_model, quantisation
from statesize.errors import FileError, StatesizeError
from statesize.io.callers import warn_caller
from statesize.models.configurations import ask_hub, checked_config, not_given, snapshot
from statesize.models.files import check_loaded, check_stored
from statesize.models.gguf import check_tensors, quick_reading, set_splitter, stored_weights
from statesize.models.gguf_config import ROPE_FACTORS, gguf_config
from statesize.models.plugins import is_gguf
from statesize.texts.tokens import AnyTokenizer

WITHOUT_TOKENIZER = "Put the model's tokenizer there, or give token ids to `statesize profile` by --text FILE.json."
"""What to do about a tokenizer that is not there."""


@contextmanager
def hushed() -> Generator[None]:
    """Hide bars and warnings of transformers and the hub; their facts about weights are read and reported elsewhere."""
    from transformers.utils import logging as bars

    disabled, shown = logging.root.manager.disable, bars.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if shown:
            bars.enable_progress_bar()


@dataclass(frozen=True)
class Checkpoint:
    """A model of transformers that is not loaded yet.

    Attributes:
        name: A folder, a GGUF file, or an id of the hub.
        revision: Branch, tag or commit of the hub.
        trust_remote_code: Whether code that comes with it is run.
        allow_pickle: Whether weights that are not safetensors are read.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def loaded(
        self, dtype: torch.dtype | None, *, needs_tokenizer: bool
    ) -> tuple[nn.Module, dict[str, str], AnyTokenizer | None]:
        """The model with all its weights, what a profile keeps of its source, and the tokenizer."""
        with quick_reading(self._gguf):
            return *self._model(self._config(), dtype), self._tokenizer(needs_tokenizer)

    def facts(self, *, needs_tokenizer: bool) -> tuple[Any, AnyTokenizer | None]:
        """The configuration and the tokenizer."""
        with quick_reading(self._gguf):
            return self._config(), self._tokenizer(needs_tokenizer)

    @property
    def _gguf(self) -> Path | None:
        return path if is_gguf(path := Path(self.name)) else None

    @property
    def _folder(self) -> Path | None:
        """Where its files lie on this machine; None for a GGUF file, and what the hub has not given yet."""
        path = Path(self.name)
        return path if path.is_dir() else None if self._gguf else snapshot(self.name, self.revision or "main")

    @property
    def _arguments(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`."""
        options: dict[str, Any] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        if (path := self._gguf) is None:
            return options | {"pretrained_model_name_or_path": self.name}
        return options | {"pretrained_model_name_or_path": str(path.absolute().parent), "gguf_file": path.name}

    @property
    def _library(self) -> Any:
        # An import statement would let a type checker read all of its models, which takes longer than all else.
        return import_module("transformers")

    def _config(self) -> Any:
        """The configuration of a model that can be measured."""
        ask_hub(self.name, self.revision)
        with self._refusing():
            config = checked_config(self._library, self.name, self._arguments)
            return gguf_config(self._library, self._gguf, config) if self._gguf else config

    def _tokenizer(self, needed: bool) -> AnyTokenizer | None:
        """The tokenizer; None where there is none and none is needed."""
        try:
            with self._refusing():
                tokenizer = self._library.AutoTokenizer.from_pretrained(**self._arguments)
                # transformers makes an empty one of a configuration alone, of which any text is no tokens.
                if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():
                    raise ValueError("its vocabulary is empty: are its files there?")
                if self._gguf:
                    set_splitter(tokenizer, self._gguf)
                return tokenizer
        except FileError as error:
            message = f"The tokenizer of {self.name} must be readable, got: {error} {WITHOUT_TOKENIZER}"
            if needed:
                raise FileError(message) from error
            if self._gguf or ((folder := self._folder) and any(folder.glob("tokenizer.*"))):
                warn_caller(message)
            return None

    def _model(self, config: Any, dtype: torch.dtype | None) -> tuple[nn.Module, dict[str, str]]:
        """The model, and its source: kind, and what else a profile keeps of it."""
        path, method = self._gguf, quantisation(config).get("quant_method")
        model, loaded = self._read(self._library.AutoModelForCausalLM, config, dtype)
        base = self._library.MODEL_MAPPING.get(type(config), None)
        if loaded["missing_keys"] and base is not None and config.architectures == [base.__name__]:
            # Saved without a head, which no layer needs to be measured.
            model, loaded = self._read(self._library.AutoModel, config, dtype)
        unused, folder = check_loaded(self.name, model, loaded), self._folder
        if path:
            check_tensors(path, model, loaded["unexpected_keys"], ROPE_FACTORS.get(config.model_type, ()))
        elif folder and not method:
            check_stored(self.name, folder, model)
        model, stored = float_model(model)
        for tensor in (*model.parameters(), *model.buffers()):
            # Weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS.
            tensor.data = tensor.data.clone()
        # Transformers leaves no trace of what it has dequantised itself.
        weights = stored_weights(path) if path else stored or (f"{method}, dequantised" if method else "")
        facts = {key: value for key, value in {"weights": weights, "unused_weights": unused}.items() if value}
        if path or Path(self.name).is_dir():
            return model, {"kind": "gguf" if path else "folder"} | facts
        commit = folder.name if folder else "unknown"
        return model, {"kind": "hub", "revision": self.revision or "main", "commit": commit} | facts

    def _read(self, kind: Any, config: Any, dtype: torch.dtype | None) -> tuple[nn.Module, Any]:
        """A model, and what is told of its weights."""
        with self._refusing():
            return kind.from_pretrained(
                config=config,
                dtype=dtype or "auto",
                use_safetensors=None if self.allow_pickle or self._gguf else True,
                weights_only=True,
                # What is missing or misshapen is refused by name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **self._arguments,
            )

    @contextmanager
    def _refusing(self) -> Generator[None]:
        """Turn what transformers, the hub, safetensors and a model's own code raise, quietly, into a FileError."""
        try:
            with hushed():
                yield
        except StatesizeError:
            raise
        except Exception as error:  # they have no error in common
            reason = " ".join(str(error).split())
            if not self.allow_pickle and "safetensors" in reason:
                reason = "its weights are not safetensors. --allow-pickle reads others, without running code in them"
            elif not self.trust_remote_code and "trust_remote_code" in reason:
                reason = "it brings Python code, which is not run. If you have read it, give --trust-remote-code"
            elif "weights_only" in reason:
                # torch proposes to run what the file holds.
                reason = "its weights are pickled with more than tensors, which is not read"
            elif not Path(self.name).exists():
                raise not_given(self.name, error) from error
            raise FileError(f"{self.name} cannot be loaded: {reason[:300].rstrip('.')}.") from error
