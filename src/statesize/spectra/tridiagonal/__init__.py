"""Operators of full rank: cores (compiled), chunks, sampled_largest, shared_thresholds and the engine tridiagonal.

Read them in this order.
"""
