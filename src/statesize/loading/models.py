"""From a name to a model and its tokenizer: bundled, a checkpoint of statesize, or a model of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import nn

from statesize import zoo
from statesize.check import require_kind
from statesize.errors import FileError, InputError, StatesizeError
from statesize.files import parse_json, read_limited
from statesize.loading.libraries import MAMBA_SSM_NAMES, hushed, is_mamba_ssm, read_config
from statesize.loading.neighbours import refuse_misspelt
from statesize.loading.refusals import check_causal, check_config, refusal_of
from statesize.mixers import load_checkpoint
from statesize.texts.token_files import configured_vocabulary, vocabulary_size
from statesize.texts.tokens import AnyTokenizer
from statesize.untrusted import check_header

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


_WITHOUT = "Put the model's tokenizer there, or give token ids to `statesize profile` by --ids FILE."


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to be profiled."""

    name: str
    model: nn.Module  # in evaluation mode, on its device
    tokenizer: AnyTokenizer | None
    # kind ("bundled", "folder" or "hub"), and for a hub id its revision and commit
    source: dict[str, str]


def load(name: str) -> tuple[nn.Module, AnyTokenizer | None]:
    """A model and its tokenizer: bundled, a folder that statesize or transformers wrote, or an id of the hub.

    Args:
        name: Such as "gla", "run/best", the folder of a smaller model of `compress`, or "state-spaces/mamba-130m-hf".

    Returns:
        The model on the CPU in evaluation mode, and its tokenizer; None where none is beside it.

    Raises:
        FileError: There is no such model, or it cannot be read.
        ModelError: It is no causal language model.

    Example:
        >>> model, tokenizer = load("gla")
        >>> model.config.mixer
        'gla'
    """
    require_kind("name", name, str, "a name or a folder")
    loaded = load_model(name, needs_tokenizer=False)
    return loaded.model, loaded.tokenizer


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    needs_tokenizer: bool = True,
) -> LoadedModel:
    """Load a bundled model, a folder (of `statesize train` or transformers) or an id of the Hugging Face hub."""
    # A model that is not there or cannot be read is a FileError, one that is no causal language model a ModelError.
    place = _device(device)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
    kind = _kind(name)
    if kind == "bundled":
        model, tokenizer = zoo.load(name)
        loaded = LoadedModel(name, model, tokenizer, {"kind": "bundled"})
    elif kind == "checkpoint":
        model, tokenizer = load_checkpoint(name), _tokenizer_or_none(name, {}, needs_tokenizer)
        loaded = LoadedModel(Path(name).absolute().name, model, tokenizer, {"kind": "folder"})
    else:
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        loaded = _from_transformers(name, dtype, options, allow_pickle=allow_pickle, needs_tokenizer=needs_tokenizer)
    if loaded.source["kind"] != "hub" and revision is not None:
        raise InputError(f"{name} is no model of the hub, so it has no revision {revision!r}; leave the revision out.")
    model = loaded.model if dtype is None else loaded.model.to(DTYPES[dtype])
    return LoadedModel(loaded.name, model.to(place).eval(), loaded.tokenizer, loaded.source)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device is {name!r}, which cannot be used here: {reason}") from error
    return device


def _kind(name: str) -> str:
    """What a name is of: "bundled", "checkpoint" (a folder of statesize) or "transformers"."""
    if name in zoo.names() + zoo.recall_names():
        return "bundled"
    if not Path(name).is_dir():
        refuse_misspelt(name)
        return "transformers"
    try:
        config = parse_json(read_limited(Path(name) / "config.json"))
    except (OSError, ValueError):
        return "checkpoint"
    if not isinstance(config, dict):
        return "checkpoint"
    known = cast("dict[str, Any]", config)
    return "transformers" if "model_type" in known or is_mamba_ssm(known) else "checkpoint"


def _checkpoint_tokenizer(folder: Path) -> Tokenizer:
    # `statesize train` keeps the tokenizer in the folder of the run and the best weights in one inside it.
    for path in (folder / "tokenizer.json", folder.absolute().parent / "tokenizer.json"):
        if path.is_file():
            try:
                return Tokenizer.from_file(str(path))  # pyright: ignore[reportUnknownMemberType]
            except Exception as error:  # the class that tokenizers raises has no narrower name
                raise FileError(f"{path} is damaged ({error}); copy it again from where the model was made.") from error
    raise FileError(f"{folder} has no tokenizer.json, nor has the folder above it. {_WITHOUT}")


def _tokenizer_or_none(name: str, options: dict[str, Any], needed: bool) -> AnyTokenizer | None:
    """The tokenizer of a folder or an id of the hub; None where none can be loaded and none is needed."""
    try:
        return load_tokenizer(name, **options)
    except FileError:
        if needed:
            raise
        return None


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> AnyTokenizer:
    """The tokenizer of a model that is loaded elsewhere; what can be told without its weights is checked."""
    # Errors are those of `load_model`.
    kind = _kind(name)
    if kind == "bundled":
        return zoo.load(name)[1]
    if kind == "checkpoint":
        return _checkpoint_tokenizer(Path(name))
    return _tokenizer_of_transformers(name, {"revision": revision, "trust_remote_code": trust_remote_code})


def _transformers(name: str) -> Any:
    if Path(name).is_file():
        raise InputError(f"{name} is a file; give the folder of a model, with its config.json.")
    try:
        import transformers
    except ImportError as error:
        raise FileError(
            f"There is no model {name!r} among the bundled ones ({', '.join(zoo.names())}), and models of the hub need "
            "the package transformers: pip install transformers."
        ) from error
    return transformers


def load_model_facts(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, needs_tokenizer: bool = True
) -> tuple[AnyTokenizer | None, int | None]:
    """Tokenizer and number of tokens of a model that is loaded elsewhere; errors are those of `load_model`."""
    options, kind = {"revision": revision, "trust_remote_code": trust_remote_code}, _kind(name)
    tokenizer = _tokenizer_or_none(name, options, needs_tokenizer)
    if kind != "transformers":
        return tokenizer, vocabulary_size(zoo.load(name)[0] if kind == "bundled" else load_checkpoint(name))
    return tokenizer, configured_vocabulary(_config_of_transformers(name, options))


def _config_of_transformers(name: str, options: dict[str, Any]) -> Any:
    """The configuration of a model of transformers that can be measured."""
    library = _transformers(name)
    try:
        with hushed():
            config = read_config(library, name, options)
        check_config(name, config, options)
        check_causal(name, config, library)
    except StatesizeError:
        raise
    except Exception as error:  # as below
        raise refusal_of(name, error, options, allow_pickle=True) from error
    return config


def _tokenizer_of_transformers(name: str, options: dict[str, Any]) -> AnyTokenizer:
    _config_of_transformers(name, options)
    library = _transformers(name)
    try:
        with hushed():
            return library.AutoTokenizer.from_pretrained(name, **options)
    except Exception as error:  # as below
        refusal = refusal_of(name, error, options, allow_pickle=True)
        if "--trust-remote-code" in str(refusal):
            raise refusal from error
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"The tokenizer of {name} cannot be loaded ({reason}). {_WITHOUT}") from error


def _from_transformers(
    name: str, dtype: str | None, options: dict[str, Any], *, allow_pickle: bool, needs_tokenizer: bool
) -> LoadedModel:
    config, library = _config_of_transformers(name, options), _transformers(name)
    for weights in Path(name).glob("*.safetensors"):
        check_header(weights)
    try:
        with hushed():
            model = library.AutoModelForCausalLM.from_pretrained(
                name,
                config=config,
                dtype=DTYPES[dtype] if dtype is not None else "auto",
                use_safetensors=None if allow_pickle else True,
                weights_only=True,
                key_mapping=MAMBA_SSM_NAMES if config.model_type in ("mamba", "mamba2") else None,
                **options,
            )
    except Exception as error:  # the hub, safetensors, pickle and the models' own code have no error in common
        raise refusal_of(name, error, options, allow_pickle=allow_pickle) from error
    tokenizer = _tokenizer_or_none(name, options, needs_tokenizer)
    _own_memory(model)
    if Path(name).is_dir():
        return LoadedModel(Path(name).absolute().name, model, tokenizer, {"kind": "folder"})
    revision = str(options["revision"] or "main")
    return LoadedModel(name, model, tokenizer, {"kind": "hub", "revision": revision, "commit": commit(name, revision)})


def commit(name: str, revision: str) -> str:
    """The commit of a model that was just loaded from the hub, which configurations do not tell in every version."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else "unknown"


def _own_memory(model: nn.Module) -> None:
    """Copies weights that are a file's pages: the file may change under the run, or lose its end, a SIGBUS."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
