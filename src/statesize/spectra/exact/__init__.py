"""Engines that take singular values as they are: the definition (read `dense` first), square-root factors, windows."""
