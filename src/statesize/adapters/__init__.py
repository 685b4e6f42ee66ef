"""From a running model to its operators."""

from statesize.adapters.capture import Capture, Captured, Mixer, capture
from statesize.adapters.faithfulness import logits_difference
from statesize.adapters.selection import find_mixers

__all__ = ["Capture", "Captured", "Mixer", "capture", "find_mixers", "logits_difference"]
