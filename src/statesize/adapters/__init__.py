"""From a running model to its operators: capture first, then runs, calls and reference, sources, kernels, observation.

All runs of models are those of `runs`, and all that is searched for by heuristics stands in `search/`. A new family of
kernels touches two files: one in `kernels/` that makes an Observation of a call, such as `kernels/recurrent_layers.py`,
or a line in `kernels/scans.KERNELS` where the kernel is a function of a model's file; and `sources`, where stand the
names by which a model's files ask for it and the state size of its kind. The sweep over all families then checks it.
"""

from statesize.adapters.capture import Capture, Captured, FoundMixer, capture
from statesize.adapters.check import CheckPolicy, Checks
from statesize.adapters.select import find_mixers

__all__ = ["Capture", "Captured", "CheckPolicy", "Checks", "FoundMixer", "capture", "find_mixers"]
