"""Hankel singular values at the positions of a cut: one engine per file or folder.

Read cut and engine, then `exact` for the definition and chosen cuts, dispatch for how an engine is chosen and run, then
any of the others: `all_cuts`, `small_state` for channels of Mamba, `implicit` for long attention.
"""
