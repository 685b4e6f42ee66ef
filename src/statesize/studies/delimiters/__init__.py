"""What delimiters do to the memory of language models.

Read corpus and sequences first, then measuring and parts, modulation and dips, and the claim last.
"""
