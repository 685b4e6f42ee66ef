"""Matrices known by their products: read krylov_space, entropy_estimate, attention and implicit, in this order."""
