"""The sequence mixers as torch modules, and the small language model that they make."""

from statesize.mixers.block import MIXERS, Block, GatedMLP
from statesize.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.mixers.config import ModelConfig
from statesize.mixers.gated import GatedLinearAttention
from statesize.mixers.linear import LinearAttention
from statesize.mixers.mixer import Mixer
from statesize.mixers.model import LanguageModel
from statesize.mixers.softmax import SoftmaxAttention
from statesize.mixers.weighted import WeightedLinearAttention

__all__ = [
    "MIXERS",
    "Block",
    "GatedLinearAttention",
    "GatedMLP",
    "LanguageModel",
    "LinearAttention",
    "Mixer",
    "ModelConfig",
    "SoftmaxAttention",
    "WeightedLinearAttention",
    "load_checkpoint",
    "save_checkpoint",
]
