"""Cuts of models of transformers and of flash-linear-attention, which keep one size of state in all layers.

Read `model` for the whole, `families` for what is known of each type, then `smaller`.
"""
