"""Which models have states that can be cut."""

from __future__ import annotations

from torch import nn

from statesize.compression.hub.families import FAMILIES
from statesize.compression.hub.model import HubModel
from statesize.compression.reducible import Reducible
from statesize.compression.trained import TrainedModel
from statesize.errors import ModelError
from statesize.lab.mixers.config import REDUCIBLE
from statesize.lab.mixers.model import LanguageModel


def reducible(model: object) -> Reducible:
    """A model as one whose states can be cut; refuse others."""
    if isinstance(model, LanguageModel):
        return TrainedModel(model)
    config = getattr(model, "config", None)
    if isinstance(model, nn.Module) and getattr(config, "model_type", None) in FAMILIES:
        return HubModel(model)
    raise ModelError(
        f"model must be one that statesize trains, with layers of {', '.join(REDUCIBLE)}, Mamba or Mamba-2 of "
        f"transformers, or GLA or Gated DeltaNet of fla, got {type(model).__name__}. Its states cannot be cut."
    )
