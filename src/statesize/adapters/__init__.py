"""From a running model to its operators: read capture, then watch, select, build and check, then forward and runs.

All runs of models are those of `runs`. Layers that no adapter knows are read from a trace of one run, in `trace/`. A
new family of kernels is a file in `kernels/` that makes an Observation of a call, and a line in `sources`, with the
names by which a model's files ask for it; a function of a model's file that scans is a line in `kernels/scans.KERNELS`.
"""

from statesize.adapters.build import Captured
from statesize.adapters.capture import Capture, capture_module
from statesize.adapters.check import Checks
from statesize.adapters.observation import FoundMixer
from statesize.adapters.select import find_mixers

__all__ = ["Capture", "Captured", "Checks", "FoundMixer", "capture_module", "find_mixers"]
