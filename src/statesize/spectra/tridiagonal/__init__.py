"""Operators of full rank: cores (compiled), chunks and the engine tridiagonal.

Read them in this order.
"""
