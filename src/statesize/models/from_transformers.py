"""Models of transformers from a folder, a GGUF file or the hub: weights, all of them, and tokenizer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from torch import nn

from statesize.adapters.models.quantised import float_model, quantisation
from statesize.errors import FileError, StatesizeError
from statesize.io.callers import warn_caller
from statesize.io.text import counted, listed
from statesize.models.configurations import checked_config
from statesize.models.gguf import check_tensors, quick_reading, set_splitter, stored_weights
from statesize.models.gguf_config import ROPE_FACTORS, gguf_config
from statesize.models.plugins import is_gguf, no_model
from statesize.texts.tokens import AnyTokenizer

WITHOUT_TOKENIZER = "Put the model's tokenizer there, or give token ids to `statesize profile` by --text FILE.json."
"""What to do about a tokenizer that is not there."""
_WHOLE = ("F64", "F32", "F16", "BF16")


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

    def tokenizer_and_config(self, *, needs_tokenizer: bool) -> tuple[AnyTokenizer | None, Any]:
        """Read the tokenizer, None where there is none, and the configuration, without the weights."""
        with quick_reading(self._gguf):
            config = self._config()
            return self._tokenizer(needs_tokenizer), config

    @property
    def _gguf(self) -> Path | None:
        return path if is_gguf(path := Path(self.name)) else None

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

    def _folder(self) -> Path | None:
        """Where its files lie on this machine, for the hub once it was loaded; None for a GGUF file."""
        from huggingface_hub import try_to_load_from_cache

        path = Path(self.name)
        if path.exists():
            return path if path.is_dir() else None
        cached = try_to_load_from_cache(self.name, "config.json", revision=self.revision or "main")
        return Path(cached).parent if isinstance(cached, str) else None

    def _config(self) -> Any:
        """The configuration of a model that can be measured."""
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
            if self._gguf or ((folder := self._folder()) and any(folder.glob("tokenizer.*"))):
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
        unused, folder = _check_loaded(self.name, model, loaded), self._folder()
        if path:
            check_tensors(path, model, loaded["unexpected_keys"], ROPE_FACTORS.get(config.model_type, ()))
        elif folder and not method:
            _check_stored(self.name, folder, model)
        model, stored = float_model(model)
        for tensor in (*model.parameters(), *model.buffers()):
            # Weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS.
            tensor.data = tensor.data.clone()
        # Transformers leaves no trace of what it has dequantised itself.
        weights = stored_weights(path) if path else stored or (f"{method}, dequantised" if method else "")
        source = {"kind": "gguf" if path else "folder"}
        if not Path(self.name).exists():
            commit = folder.name if folder else "unknown"
            source = {"kind": "hub", "revision": self.revision or "main", "commit": commit}
        facts = {"weights": weights, "unused_weights": unused}
        return model, source | {key: value for key, value in facts.items() if value}

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
                given = reason.partition(". ")[0][:200]
                raise FileError(no_model(self.name, f"is no folder, and the hub gives none: {given}")) from error
            raise FileError(f"{self.name} cannot be loaded: {reason[:300].rstrip('.')}.") from error


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


def _check_loaded(name: str, model: nn.Module, loaded: Mapping[str, Collection[Any]]) -> str:
    """Refuse a model with weights that its checkpoint lacks, or has in another shape; say which go unused."""
    shapes = [f"{weight} of shape {tuple(stored)}" for weight, stored, _ in sorted(loaded["mismatched_keys"])]
    if wrong := [*sorted(loaded["missing_keys"]), *shapes]:
        total = sum(1 for _ in model.named_parameters())
        raise FileError(
            f"{name} lacks {len(wrong)} of the model's {total} weights, which would be random numbers: "
            f"{listed(wrong)}. Give a checkpoint with all of them, and its own config.json."
        )
    if not (unused := sorted(loaded["unexpected_keys"])):
        return ""
    sentence = f"No part of the model uses {counted(len(unused), 'weight')} of the checkpoint: {listed(unused)}"
    warn_caller(f"{name}: {sentence}.")
    return sentence


def _check_stored(name: str, folder: Path, model: nn.Module) -> None:
    """Refuse weights in integers or in floats of 8 bits, which transformers takes as they are, without their scales."""
    parameters = [parameter for parameter, _ in model.named_parameters()]
    for shard in (*folder.glob("model.safetensors"), *sorted(folder.glob("model-*-of-*.safetensors"))):
        with safetensors.safe_open(shard, "pt") as stream:  # pyright: ignore[reportUnknownVariableType]
            file = cast("Any", stream)
            for weight in file.keys():
                dtype = file.get_slice(weight).get_dtype()
                # Masks of older models are of bytes, and no parameters; a model may be stored without its head.
                if dtype not in _WHOLE and any(key.endswith(weight) or weight.endswith(key) for key in parameters):
                    raise FileError(
                        f"{name} must hold its weights in floating point of 16 bits or more, got {weight} as {dtype}: "
                        "quantised, without its scales. Give the checkpoint that it was made from."
                    )
