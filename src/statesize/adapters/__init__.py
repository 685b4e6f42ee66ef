"""From a running model to its operators."""

from statesize.adapters.capture import Captured, capture, find_mixers, select_mixers

__all__ = ["Captured", "capture", "find_mixers", "select_mixers"]
