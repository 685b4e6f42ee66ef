"""Certified counts and entropies by eliminations of shifted Gram matrices.

Read quadrature first, then groups and certified, then bordered and the engines chunked and streaming. The engine
tridiagonal is for operators of full rank: its cores are compiled, and largest_values bounds σ_1 where T is held.
"""
