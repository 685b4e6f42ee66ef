"""From a running model to its operators."""

from statesize.adapters.capture import Capture, Captured, Mixer, capture
from statesize.adapters.checking import Checking, Checks
from statesize.adapters.selection import find_mixers

__all__ = ["Capture", "Captured", "Checking", "Checks", "Mixer", "capture", "find_mixers"]
