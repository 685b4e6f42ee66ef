"""The sequence mixers as torch modules, and the small language model that they make.

Read `base`, then `la` and any other mixer, then `model`. A mixer is a class in a file of its own under
`@mixer("name")`.
"""

from statesize.lab.mixers.base import HeadMixer, Mixer
from statesize.lab.mixers.checkpoint import load_checkpoint, save_checkpoint
from statesize.lab.mixers.config import ModelConfig, mixer
from statesize.lab.mixers.la import LinearAttention
from statesize.lab.mixers.model import LanguageModel

__all__ = [
    "HeadMixer",
    "LanguageModel",
    "LinearAttention",
    "Mixer",
    "ModelConfig",
    "load_checkpoint",
    "mixer",
    "save_checkpoint",
]
__dir__ = __all__.copy
