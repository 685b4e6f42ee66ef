"""The sequence mixers as torch modules, and the small language model that they make.

Read `mixer`, then one of `attention`, `state_space` or `convolution`, then `block` and `model`. A mixer is a file with
a subclass of `Mixer`, and a line in the list of `block`.
"""

from statesize.mixers.attention.gated import GatedLinearAttention
from statesize.mixers.attention.gated_s6 import GatedLinearAttentionS6
from statesize.mixers.attention.linear import LinearAttention
from statesize.mixers.attention.softmax import SoftmaxAttention
from statesize.mixers.attention.weighted import WeightedLinearAttention
from statesize.mixers.block import Block, GatedMLP
from statesize.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.mixers.config import ModelConfig
from statesize.mixers.convolution.long_convolution import LongConvolution
from statesize.mixers.mixer import Mixer
from statesize.mixers.model import LanguageModel
from statesize.mixers.registry import MIXERS, mixer_names, register_mixer
from statesize.mixers.state_space.s4d import S4D
from statesize.mixers.state_space.s6 import S6

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
    "LongConvolution",
    "Mixer",
    "ModelConfig",
    "SoftmaxAttention",
    "WeightedLinearAttention",
    "load_checkpoint",
    "mixer_names",
    "register_mixer",
    "save_checkpoint",
]
