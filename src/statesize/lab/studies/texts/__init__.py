"""What trained models do with the delimiters of a text, for the studies of delimiters and of recall.

Read documents first, then sequences, dips (ESS around the same cuts), and reading (the settings).
"""
