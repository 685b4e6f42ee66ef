"""Certified counts and entropies by eliminations of shifted Gram matrices.

Read elimination_tree and quadrature first, then groups, shared_thresholds and certified, then the engines chunked
and streaming. largest_values bounds σ_1 where T is held.
"""
