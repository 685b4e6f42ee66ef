"""One file per family of kernels: read attention first, then scans, recurrent_layers and convolutions."""
