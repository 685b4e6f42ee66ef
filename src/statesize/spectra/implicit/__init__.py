"""Matrices known by their products alone: softmax attention of long contexts.

Read krylov_space, entropy_estimate, attention and implicit, in this order (docs/appendix/engine-mathematics.md,
"Matrices known by their products").
"""
