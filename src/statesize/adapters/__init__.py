"""From a running model to its operators: capture first, then calls and reference, sources, kernels and observation.

A new family of kernels touches three files: a file in `kernels/` that makes an Observation of a call, such as
`kernels/recurrent_layers.py`; its line in `sources.SOURCES`, or in `kernels/scans.KERNELS` where the kernel is a
function of a model's file; and the state size of its kind in `sources.STATE_SIZES`. The sweep over all families then
checks it.
"""

from statesize.adapters.capture import Capture, Captured, FoundMixer, capture
from statesize.adapters.reference import CheckPolicy, Checks
from statesize.adapters.selection import find_mixers

__all__ = ["Capture", "Captured", "CheckPolicy", "Checks", "FoundMixer", "capture", "find_mixers"]
