"""Needles: pairs of tokens put into real text, whether a model finds them again, and which heads carry them there.

Read `haystack` for the texts, `needles` for what is measured, and `result` for what is said about it.
"""
