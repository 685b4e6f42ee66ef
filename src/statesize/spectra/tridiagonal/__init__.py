"""Operators of full rank: cores (compiled), chunks, sampled_largest and the engine tridiagonal.

Read them in this order.
"""
