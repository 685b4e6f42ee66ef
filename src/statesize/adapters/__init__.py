"""From a running model to its operators: read capture, then watch, select, build and check, then forward and runs.

All runs of models are those of `runs`. Layers that no adapter knows are read from a trace of one run, in `trace/`. A
new family of kernels touches two files: one in `kernels/` that makes an Observation of a call, such as
`kernels/recurrent_layers.py`, or a line in
`kernels/scans.KERNELS` where the kernel is a function of a model's file; and `sources`, where stand the names by which
a model's files ask for it and the state size of its kind: it opens a source by its name, so that no run imports what
the model does not need. The sweep over all families then checks it.
"""

from statesize.adapters.capture import Capture, Captured, FoundMixer, capture_module
from statesize.adapters.check import Checks
from statesize.adapters.select import find_mixers

__all__ = ["Capture", "Captured", "Checks", "FoundMixer", "capture_module", "find_mixers"]
