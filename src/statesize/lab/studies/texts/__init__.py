"""What trained models do with the delimiters of a text, for the study of delimiters.

Read documents first, then dips (ESS around the same cuts), and reading (the settings).
"""
