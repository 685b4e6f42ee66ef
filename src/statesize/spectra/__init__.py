"""Hankel singular values at every position: one engine a file."""
