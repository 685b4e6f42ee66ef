"""What delimiters do to the memory of language models.

Read corpus, subjects and sequences first, then measuring, modulation and dips, and the claim last.
"""
