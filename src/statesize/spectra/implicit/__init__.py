"""Matrices known by their products alone: softmax attention of long contexts.

Read attention, krylov_space, entropy_interval, entropy_estimate and implicit, in this order
(docs/appendix/engine-mathematics.md, "Matrices known by their products").
"""
