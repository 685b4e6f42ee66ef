"""All cuts of an operator: counts and entropies from eliminations around tridiagonal cores.

Read all_cuts, blocks, chunks, eliminations and quadrature, in this order (docs/appendix/engine-mathematics.md).
"""
