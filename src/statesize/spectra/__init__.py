"""Hankel singular values at every position: one engine per file.

Read cut and engine, then `exact` for the definition, choice and dispatch for how one is chosen and run, then any of
the others: `lanes` and `shifts` for recurrences, `shifts` and `implicit` for attention, `convolution`.
"""
