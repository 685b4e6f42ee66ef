"""Mixers that are long convolutions, and the convolution itself."""
