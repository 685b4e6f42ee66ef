"""The sequence mixers as torch modules, and the small language model that they make.

Read `mixer`, then one of `attention`, `s6` or `convolution`, then `block` and `model`. A mixer is a subclass of `Mixer`
in the file of its family, and a line in the list of `block`.
"""

from statesize.lab.mixers.attention.gated import GatedLinearAttention, GatedLinearAttentionS6, WeightedLinearAttention
from statesize.lab.mixers.attention.linear import LinearAttention
from statesize.lab.mixers.attention.softmax import SoftmaxAttention
from statesize.lab.mixers.block import Block, GatedMLP
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.mixers.config import ModelConfig
from statesize.lab.mixers.convolution import S4D
from statesize.lab.mixers.mixer import Mixer
from statesize.lab.mixers.model import LanguageModel
from statesize.lab.mixers.registry import MIXERS, mixer_names, register_mixer
from statesize.lab.mixers.s6 import S6

__all__ = [
    "MIXERS",
    "S4D",
    "S6",
    "Block",
    "GatedLinearAttention",
    "GatedLinearAttentionS6",
    "GatedMLP",
    "LanguageModel",
    "LinearAttention",
    "Mixer",
    "ModelConfig",
    "SoftmaxAttention",
    "WeightedLinearAttention",
    "load_checkpoint",
    "mixer_names",
    "register_mixer",
    "save_checkpoint",
]
__dir__ = __all__.copy
