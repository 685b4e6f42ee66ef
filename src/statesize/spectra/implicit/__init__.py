"""Matrices known by their products alone: linear_map, krylov_space, bernstein, probes, entropy_interval, implicit.

Read them in this order (docs/engines.md, "Matrices known by their products").
"""
