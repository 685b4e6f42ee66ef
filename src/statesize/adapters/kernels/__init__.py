"""One file a family of kernels: attention, softmax_tap and probabilities first, then recurrences and convolutions."""
