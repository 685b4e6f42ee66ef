"""One file a family of kernels.

Read attention, softmax_tap and probabilities first, then scans, recurrent_layers and convolutions.
"""
