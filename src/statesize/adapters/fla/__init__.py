"""Layers of flash-linear-attention (fla): its kernels are observed where a layer's file calls them."""
