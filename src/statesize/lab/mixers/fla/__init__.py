"""Layers of flash-linear-attention as mixers of this package's models, trained on a GPU or in torch."""
